"""``xbuild attach``: use the console of a container in the background."""

from __future__ import annotations

import os

import click

from xbuild.cli.names import complete_names
from xbuild.cli.output import note
from xbuild.sandbox.attaching import attach
from xbuild.sandbox.listing import find


@click.command("attach", epilog="Press ^] three times within a second to let go of it.")
@click.argument("name", metavar="NAME|TREE", shell_complete=complete_names)
def command(name: str) -> int:
    """Use the console of the container NAME, and exit with its status when it ends."""
    terminal = tuple(fd for fd in range(3) if os.isatty(fd))
    with find(name) as handle:
        status = attach(handle, terminal)
    if status is None:
        note(f"detached; container {name} goes on")
        return 0
    return status
