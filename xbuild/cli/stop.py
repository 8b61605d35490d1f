"""``xbuild stop``: end a running container."""

from __future__ import annotations

import signal

import click

from xbuild.cli.names import complete_names
from xbuild.cli.settings import read_seconds
from xbuild.plan.lifecycle import BOOTED_KILL_TIMEOUT_S, KILL_TIMEOUT_S
from xbuild.sandbox.listing import find

_TIDIES_WITHIN_S = 30.0  # on a busy machine killed processes, and what they wrote, take their time


@click.command("stop")
@click.argument(
    "names", metavar="NAME|TREE...", nargs=-1, required=True, shell_complete=complete_names
)
@click.option(
    "--kill-timeout",
    metavar="TIME",
    help=f"From SIGTERM to SIGKILL [{KILL_TIMEOUT_S:g}; for an init {BOOTED_KILL_TIMEOUT_S:g}].",
)
def command(names: tuple[str, ...], kill_timeout: str | None) -> None:
    """End the container NAME: by SIGTERM, and after a time of grace by SIGKILL."""
    given_s = None if kill_timeout is None else read_seconds(kill_timeout, "kill_timeout")
    for name in names:
        with find(name) as handle:
            default_s = BOOTED_KILL_TIMEOUT_S if handle.running.is_booted else KILL_TIMEOUT_S
            grace_s = default_s if given_s is None else given_s
            handle.send(signal.SIGTERM)
            handle.send(signal.SIGCONT)  # one that is stopped could not heed it
            if handle.wait(grace_s):
                continue
            handle.kill()
            if not handle.wait(_TIDIES_WITHIN_S):  # the launcher itself hangs
                handle.send(signal.SIGKILL)
                handle.wait(None)
