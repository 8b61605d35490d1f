"""``xbuild logs``: what a container in the background wrote."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from xbuild.cli.names import complete_names
from xbuild.errors import NoSuchContainer
from xbuild.plan.lifecycle import is_name
from xbuild.sandbox.console import log_directory, log_path
from xbuild.sandbox.listing import find

if TYPE_CHECKING:
    from xbuild.sandbox.listing import Handle

_CHUNK = 65536
_PAUSE_S = 0.1


@click.command("logs")
@click.argument("name", metavar="NAME|TREE", shell_complete=complete_names)
@click.option("--follow", "-f", is_flag=True, help="Go on until the container ends.")
def command(name: str, follow: bool) -> None:
    """Show the output of the container NAME, also after its end, until the next one of its name."""
    with ExitStack() as stack:
        handle: Handle | None = None
        try:
            handle = stack.enter_context(find(name))
        except NoSuchContainer:
            if not is_name(name):
                raise
        path = log_path(name if handle is None else handle.running.name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NoSuchContainer(
                f"There is no log of a container {name}: {error.strerror}",
                f"logs are of those that xbuild start started, in {log_directory()}",
            ) from error
        stack.callback(os.close, fd)
        _show(path, fd, handle if follow else None)


def _show(path: str, fd: int, handle: Handle | None) -> None:
    while True:
        is_over = handle is None or handle.wait(0)
        while content := os.read(fd, _CHUNK):
            _write(content)
        if is_over:
            return
        if _begins_anew(path, fd):
            newer = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            os.dup2(newer, fd, inheritable=False)
            os.close(newer)
        time.sleep(_PAUSE_S)


def _begins_anew(path: str, fd: int) -> bool:
    try:
        return os.stat(path).st_ino != os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def _write(content: bytes) -> None:
    while content:
        content = content[os.write(1, content) :]
