"""``xbuild image release``: detach what another program left of an image, after showing it."""

from __future__ import annotations

import sys

import click

from xbuild.cli.output import note
from xbuild.cli.who import print_uses
from xbuild.errors import EXIT_FAILED, UsageError
from xbuild.record import HostPath


@click.command("release")
@click.argument("image", type=click.Path(readable=False))
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def command(image: str, yes: bool) -> int:
    """Unmount IMAGE and detach its loop devices, where another program left them.

    What is mounted below is unmounted without taking it from the host. Mounts of running
    processes in namespaces of their own are left alone: they go with those.
    """
    from xbuild.image.release import refuse_locked, releasable, release
    from xbuild.image.users import find_uses

    uses = find_uses(HostPath(image))
    print_uses(uses)
    refuse_locked(uses)
    if not releasable(uses):
        return EXIT_FAILED if uses.found else 0
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("Nobody is there to ask", "--yes detaches what is shown above")
        click.confirm("Detach these?", abort=True, err=True)
    left = release(HostPath(image))
    if left.found:
        note("still there:")
        print_uses(left)
        return EXIT_FAILED
    note(f"nothing holds {image} any more")
    return 0
