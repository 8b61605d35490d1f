"""Processes that a test leaves behind, whatever session, environment or namespace they hid in.

pytest becomes the subreaper of its descendants (PR_SET_CHILD_SUBREAPER, prctl(2)): a process whose
parents have died is then a child of pytest, and not of the machine's init.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable

from tests.patience import wait_for

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SETTLE_S = 15.0


def adopt_orphans() -> None:
    """Make this process the parent of every descendant that loses its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def descendants() -> dict[int, str]:
    """Return the command lines of all living processes below this one, by pid."""
    found: dict[int, str] = {}
    pending = [os.getpid()]
    while pending:
        for child in _children(pending.pop()):
            pending.append(child)
            command = _command(child)
            if command:
                found[child] = command
    return found


def await_program(*argv: str) -> None:
    """Wait until a process below this one has become a program: until then it is a shell's child.

    Such a child still has its shell's traps: a signal that comes too early is lost.
    """
    wait_for(lambda: any(_is_program(pid, argv) for pid in descendants()))


def await_foreground(*argv: str) -> None:
    """Wait until such a program goes on in the foreground of its terminal, as after fg."""
    wait_for(lambda: any(_is_foreground(pid) for pid in descendants() if _is_program(pid, argv)))


def left_since(before: dict[int, str]) -> dict[int, str]:
    """Return what has been started since and still lives, after a moment of grace."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        _reap()
        left = {pid: text for pid, text in descendants().items() if pid not in before}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def end(processes: dict[int, str]) -> None:
    """Kill leftovers, so that the next test starts clean."""
    kill(processes)
    _reap()


def kill(processes: Iterable[int]) -> None:
    """Kill processes by their pids, those that are gone already aside."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _reap() -> None:
    """Collect orphans that have ended: their parents, who would have, are gone."""
    for child in _children(os.getpid()):
        if not _command(child):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as children:
                found.extend(int(child) for child in children.read().split())
    return found


def _command(pid: int) -> str:
    """Return a living process's command line; nothing for a zombie or none at all."""
    command = _arguments(pid).replace(b"\0", b" ").decode(errors="replace").strip()
    try:
        # In the middle of an execve(2) a living process has no command line either.
        return command or ("" if _is_zombie(pid) else f"(pid {pid})")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _is_program(pid: int, argv: tuple[str, ...]) -> bool:
    """Tell whether these are the last words of a process; an emulated one has its emulator's."""
    words = _arguments(pid).split(b"\0")[:-1]
    return words[-len(argv) :] == [os.fsencode(word) for word in argv]


def _is_foreground(pid: int) -> bool:
    """Tell whether the terminal of a process is its group's, and it is not stopped."""
    state, _, group, _, _, foreground = _status(pid)[:6]
    return group == foreground and state != "T"


def _status(pid: int) -> list[str]:
    """Return what /proc/PID/stat says after the name."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _arguments(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _is_zombie(pid: int) -> bool:
    return _status(pid)[0] in "ZX"
