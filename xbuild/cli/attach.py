"""``xbuild attach``: use the console of a container in the background."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from xbuild.cli.names import complete_names
from xbuild.cli.output import note
from xbuild.sandbox.asking import plan_of
from xbuild.sandbox.attaching import attach
from xbuild.sandbox.console import end_of_log, log_path
from xbuild.sandbox.listing import find

if TYPE_CHECKING:
    from xbuild.plan.steps import Plan


@click.command("attach", epilog="Press ^] three times within a second to let go of it.")
@click.argument("name", metavar="NAME|TREE", shell_complete=complete_names)
def command(name: str) -> int:
    """Use the console of the container NAME, and exit with its status when it ends."""
    terminal = tuple(fd for fd in range(3) if os.isatty(fd))
    with find(name) as handle:
        plan = plan_of(handle.running)
        status = attach(handle, terminal)
        output = end_of_log(log_path(handle.running.name))
    if status is None:
        note(f"detached; container {name} goes on")
        return 0
    if plan is not None and plan.command.init is None:
        _explain(plan, status, output)
    return status


def _explain(plan: Plan, status: int, output: bytes) -> None:
    """Say what is known of a failure, as the end of the log does."""
    from xbuild.cli.run import is_telling, tell_why  # only for an end

    if is_telling(plan.command.argv, status, output):
        tell_why(plan, status, output)
