"""A process 1 of ours above the one that the guest has: for a command that wants the number 1.

The command is process 1 of a PID namespace within another, whose process 1 is this. A guest's init
can undo its binding to its parent (PR_SET_PDEATHSIG), but nothing inside reaches this one: when
xbuild dies, it does, and the kernel ends everything below.

It also sees to what qemu-user cannot: the kernel drops signals with a default action for a process
1 (pid_namespaces(7)), so when qemu means to die of one it waits for ever. What it then looks like
is known (linux-user/signal.c: dump_core_and_abort), and it is ended in its place.

Off the start path: loaded for ``--as-pid1``.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from xbuild.errors import EXIT_FAILED, EXIT_SIGNAL_BASE
from xbuild.sandbox import _linux, init, signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from xbuild.sandbox.assembly import Lines, ProcessOne
    from xbuild.sandbox.channel import Gate

_LOOK_EVERY_S = 1.0
_NEVER_BLOCKED = {signal.SIGKILL, signal.SIGSTOP, 32, 33}  # the last two are libc's: signal(7)


def run(first: Callable[[], ProcessOne], lines: Lines, parent: Gate) -> NoReturn:
    """Fork the container's process 1 by ``first``, and end as it ends. Raises OSError."""
    parent.watch()
    os.setsid()
    signals.hold_back_for_init()
    inner = first()
    inner.write_maps()
    lines.close_here()
    if parent.is_deserted():
        os._exit(EXIT_FAILED)
    _linux.prctl_name(b"xbuild-outer")
    os._exit(_attend(inner))


def _attend(inner: ProcessOne) -> int:
    hanging = 0
    while True:
        number = signals.next_for_init_within(_LOOK_EVERY_S)
        if number is None:
            found = _pending_death(_status_of(inner))
            if found and found == hanging:  # it was so a second ago
                os.kill(inner.pid, signal.SIGKILL)
                init.wait_for(inner.pid)
                return EXIT_SIGNAL_BASE + found
            hanging = found
        elif number == signal.SIGCHLD:
            pid, wait_status = os.waitpid(inner.pid, os.WNOHANG)
            if pid:
                return init.exit_status_of(wait_status)
        else:
            signals.send(inner.pid, number)


def _status_of(inner: ProcessOne) -> str:
    try:
        directory = inner.open_directory()
    except OSError:
        return ""
    try:
        fd = os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        with open(fd, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
    finally:
        os.close(directory)


def _pending_death(status: str) -> int:
    """Return the signal that a process, by its /proc/PID/status, wants to die of; 0 if none.

    It sleeps with every signal blocked but that one, which it leaves to the default action.
    """
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if fields.get("State", "").split()[:1] != ["S"]:
        return 0
    blocked, caught, ignored = (int(fields[key], 16) for key in ("SigBlk", "SigCgt", "SigIgn"))
    open_ones = {n for n in range(1, 65) if not blocked >> (n - 1) & 1} - _NEVER_BLOCKED
    if len(open_ones) != 1:
        return 0
    (number,) = open_ones
    return 0 if (caught | ignored) >> (number - 1) & 1 else number
