"""A run in which nothing moves: who is in it, what each waits for, and what is known of that.

Off the start path: loaded when an idle timeout passes.
"""

from __future__ import annotations

import platform
import shlex
from typing import TYPE_CHECKING

from xbuild.diagnosis.limits import known_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xbuild.diagnosis.limits import Limit
    from xbuild.sandbox.deadline import Process

_MOST = 8
_STATES = {
    "R": "runs",
    "S": "sleeps",
    "D": "waits for the disk or the kernel",
    "T": "is stopped",
    "t": "is being traced",
    "Z": "has ended, and nobody has asked how",
    "I": "idles",
}
# System calls in which programs wait, by the numbers of asm/unistd_64.h and asm-generic/unistd.h.
_CALLS = {
    "x86_64": {
        0: "read",
        1: "write",
        7: "poll",
        23: "select",
        34: "pause",
        35: "nanosleep",
        43: "accept",
        45: "recvfrom",
        47: "recvmsg",
        61: "wait4",
        72: "fcntl",
        73: "flock",
        128: "rt_sigtimedwait",
        130: "rt_sigsuspend",
        202: "futex",
        230: "clock_nanosleep",
        232: "epoll_wait",
        247: "waitid",
        270: "pselect6",
        271: "ppoll",
        281: "epoll_pwait",
        288: "accept4",
    },
    "aarch64": {
        22: "epoll_pwait",
        25: "fcntl",
        32: "flock",
        63: "read",
        64: "write",
        72: "pselect6",
        73: "ppoll",
        95: "waitid",
        98: "futex",
        101: "nanosleep",
        115: "clock_nanosleep",
        133: "rt_sigsuspend",
        137: "rt_sigtimedwait",
        202: "accept",
        207: "recvfrom",
        212: "recvmsg",
        242: "accept4",
        260: "wait4",
    },
}
_MEANINGS = {
    "futex": "another thread, or a lock",
    "wait4": "a child",
    "waitid": "a child",
    "read": "input",
    "write": "somebody to read its output",
    "nanosleep": "time to pass",
    "clock_nanosleep": "time to pass",
    "flock": "a locked file",
    "fcntl": "a locked file",
}


def describe(processes: tuple[Process, ...]) -> str:
    """Return lines that say what hung, the innermost last, and what is known of it."""
    lines = [_in_words(each) for each in processes[:_MOST]]
    if len(processes) > _MOST:
        lines.append(f"and {len(processes) - _MOST} more processes")
    for limit, seen in _known(processes):
        lines.append(f"known limit: {limit.cause}; seen: {seen}; reported: {limit.issue}")
        lines.append(limit.attempt)
    return "\n".join(lines)


def call_name(process: Process) -> str:
    """Return the name of the system call that a process waits in, "" where it is not known."""
    names = _CALLS.get(platform.machine(), {})
    return "" if process.call is None else names.get(process.call, "")


def _in_words(process: Process) -> str:
    state = _STATES.get(process.state, f"is in state {process.state}")
    call = call_name(process)
    waits = f", waits for {_MEANINGS.get(call, 'an event')} ({call})" if call else ""
    how = f" by {process.emulator}" if process.emulator else ""
    return f"process {process.pid}{how}: {shlex.join(process.argv)[:200]}: {state}{waits}"


def _known(processes: tuple[Process, ...]) -> Iterator[tuple[Limit, str]]:
    """Yield the first limit that speaks of some process, and what was seen of that."""
    for limit in known_limits():
        for process in processes:
            words = shlex.join(process.argv)
            fits = any(pattern.fullmatch(words) for pattern in limit.commands)
            waits = not limit.waits or call_name(process) in limit.waits
            if fits and waits and ("emulated" not in limit.needs or process.emulator):
                yield limit, _in_words(process)
                return
