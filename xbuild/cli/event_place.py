"""Where the events of a run go: ``-``, a descriptor that is open for xbuild, a file, a named pipe.

Off the start path: loaded for ``--events``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from xbuild.cli.output import note
from xbuild.errors import UsageError

TO_OUTPUT = "-"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOCTTY
_SAID_AFTER_S = 1.0
_PATIENCE_S = 10.0
_PAUSE_S = 0.02


def open_place(place: str) -> int:
    """Return a descriptor of ``place`` to write to.

    A named pipe is opened once somebody has it open for reading, as a shell's > does, but not
    waited for without end and without a word. Raises UsageError.
    """
    if place == TO_OUTPUT:
        return 1
    if place.isascii() and place.isdigit():
        return _inherited(int(place[:9]))
    try:
        if _is_pipe(place):
            return _open_pipe(place)
        return os.open(place, _FLAGS, 0o644)
    except OSError as error:
        raise UsageError(
            f"Cannot write events to {place}: {error.strerror}",
            "a file in a directory that is there, a named pipe, - for standard output, or a"
            " descriptor's number",
        ) from error


def _is_pipe(place: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(place).st_mode)
    except FileNotFoundError:
        return False


def _open_pipe(place: str) -> int:
    began, is_said = time.monotonic(), False
    while True:
        try:
            fd = os.open(place, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        else:
            os.set_blocking(fd, True)
            return fd
        waited_s = time.monotonic() - began
        if waited_s > _PATIENCE_S:
            raise UsageError(
                f"Nobody reads the events of the named pipe {place}: waited {_PATIENCE_S:.0f} s",
                f"start the reader first: jq . <{place} &",
            )
        if waited_s > _SAID_AFTER_S and not is_said:
            note(f"waiting for somebody to read {place}, to which the events go")
            is_said = True
        time.sleep(_PAUSE_S)


def _inherited(fd: int) -> int:
    try:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError as error:
        raise UsageError(
            f"Cannot write events to descriptor {fd}: {error.strerror}",
            "open it for xbuild, such as 3>events.jsonl in a shell; ./3 is a file of that name",
        ) from error
    if mode == os.O_RDONLY:
        raise UsageError(
            f"Cannot write events to descriptor {fd}: it is open for reading",
            f"open it for writing, such as {max(fd, 3)}>events.jsonl in a shell",
        )
    if fd > 2:
        os.set_inheritable(fd, False)
    return fd
