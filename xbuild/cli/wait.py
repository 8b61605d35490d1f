"""``xbuild wait``: wait for the end of a container."""

from __future__ import annotations

import signal

import click

from xbuild.cli.names import complete_names
from xbuild.cli.output import note
from xbuild.errors import EXIT_SIGNAL_BASE
from xbuild.sandbox.listing import find


@click.command("wait")
@click.argument("name", metavar="NAME|TREE", shell_complete=complete_names)
def command(name: str) -> int:
    """Wait until the container NAME has ended, and exit with its status."""
    with find(name) as handle:
        status = handle.wait_for_all()
    if status is None:
        note(f"container {name} was killed")
        return EXIT_SIGNAL_BASE + signal.SIGKILL
    return status
