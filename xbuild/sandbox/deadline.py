"""The time of a run: how long it may take in all, and how long without getting on.

Getting on is what shows in proc(5): a process of the container has written something, to whatever,
or they have used at least a twentieth of one processor since then. So output to a file
counts as much as to a terminal, and a loop that only looks whether something has happened does not.

Off the start path: loaded where time is limited.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from xbuild.emulation.rules import BINFMT_P_SUFFIX
from xbuild.errors import TimedOut
from xbuild.record import Record
from xbuild.sandbox.signals import END_ALL
from xbuild.sandbox.sysfs import io_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xbuild.plan.lifecycle import LimitTime

_LONGEST_TICK_S = 1.0
_TICKS_IN_IDLE = 8
_LEAST_SHARE = 0.05  # of one processor: an emulated sleep(1) each second takes up to 0.03
_PROCESSES_LIMIT = 1000
_WORDS_LIMIT = 4096  # characters
_NS_GET_PARENT = 0xB702  # linux/nsfs.h
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Activity(Record):
    """What the processes of a container have done: characters written, clock ticks used."""

    written: int
    ticks: int


class Process(Record):
    """A process of a container: its number outside, its words without the emulator's, its state.

    ``emulator`` is qemu's name, "" for a native one; ``call`` the number of the system call that
    it is in, None where that cannot be seen (proc(5)).
    """

    pid: int
    argv: tuple[str, ...]
    state: str
    emulator: str = ""
    call: int | None = None


class Deadline:
    """A block in which SIGALRM looks at the clock, and ends a child that is out of time.

    It is asked to end by SIGTERM; then process 1 kills all others, and copies out what it has to;
    and if in that, too, nothing moves any more, the child itself is killed.
    """

    def __init__(
        self, limit: LimitTime, pid: int, porter: int = -1, before: Deadline | None = None
    ) -> None:
        """Limit process ``pid``, in all that of ``before`` included, which has ended.

        ``porter`` is the process that takes what is copied out, -1 for none.
        """
        self._before = before
        self._limit = limit
        self._pid = pid
        self._porter = porter
        self._is_on = False
        self._is_looking = False
        self._all_ended = False
        self._why = ""
        self._hint = ""
        self._is_idle = False
        self._kill_at = 0.0
        self.when_it_passes: Callable[[str, tuple[Process, ...]], None] | None = None
        self.keeps_names = True  # binfmt_misc's flag P: an emulator gets a program's argv[0], too

    def __enter__(self) -> Deadline:
        self._pidfd = os.pidfd_open(self._pid)
        self._began = self._progress = self._looked = time.monotonic()
        if self._before is not None:
            self._began = self._before._began
        self._activity = Activity(0, 0)
        times = [self._limit.total_s, self._limit.idle_s]
        shortest = min(each for each in [*times, self._limit.kill_s] if each is not None)
        self._tick_s = min(_LONGEST_TICK_S, shortest / _TICKS_IN_IDLE)
        self._handler = signal.signal(signal.SIGALRM, lambda *_: self._on_tick())
        signal.setitimer(signal.ITIMER_REAL, self._tick_s, self._tick_s)
        self._is_on = True
        return self

    def __exit__(self, *_exception: object) -> None:
        self._is_on = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler)
        os.close(self._pidfd)

    @property
    def has_passed(self) -> bool:
        """Whether it was time that ended the run, or is about to."""
        return bool(self._why)

    def end_within(self, seconds: float) -> None:
        """End the run for good after so long: somebody else has asked it to end."""
        at = time.monotonic() + seconds
        if self._is_on and not self._all_ended and at < (self._kill_at or at + 1):
            self._kill_at = at
            signal.setitimer(signal.ITIMER_REAL, seconds, self._tick_s)

    def raise_if_passed(self) -> None:
        """Raise TimedOut if it was time that ended the run."""
        if self._why:
            raise TimedOut(f"Time is up: {self._why}", self._hint, is_idle=self._is_idle)

    def _on_tick(self) -> None:
        """Look, unless the tick falls into a look that takes long: it would find that half-done."""
        if not self._is_looking:
            self._is_looking = True
            self._look()
            self._is_looking = False

    def _look(self) -> None:
        now = time.monotonic()
        was_away = now - self._looked > 2 * _LONGEST_TICK_S + self._tick_s
        self._looked = now
        if self._kill_at:
            if now >= self._kill_at:
                self._end_for_good(now)
            return
        total_s, idle_s = self._limit.total_s, self._limit.idle_s
        if total_s is not None and now - self._began >= total_s:
            self._end(now, f"the run has taken {total_s:g} s (--timeout)")
        elif idle_s is not None:
            self._look_for_progress(now, idle_s, was_away=was_away)

    def _look_for_progress(self, now: float, idle_s: float, *, was_away: bool) -> None:
        activity, before = activity_below(self._pid), self._activity
        share = (activity.ticks - before.ticks) / _TICKS_PER_S / (now - self._progress)
        if was_away or activity.written != before.written or share >= _LEAST_SHARE:
            self._progress, self._activity = now, activity
            return
        if share < 0:  # a process has ended, and nobody has its ticks
            self._activity = activity
        if now - self._progress >= idle_s:
            from xbuild.sandbox.hang import describe  # off most runs' path

            self._is_idle = True
            self._hint = describe(self._processes())
            self._end(now, f"nothing has moved for {idle_s:g} s (--idle-timeout)")

    def _end(self, now: float, why: str) -> None:
        self._why = why
        self._kill_at = now + self._limit.kill_s
        if self.when_it_passes is not None:
            self.when_it_passes(why, self._processes())
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)  # one that is stopped could not heed it

    def _end_for_good(self, now: float) -> None:
        ported = io_of(self._porter, "rchar", "wchar") or 0
        moved = Activity(activity_below(self._pid).written + ported, 0)
        if not self._all_ended:
            self._all_ended = True
            self._send(END_ALL)
        elif moved == self._activity:
            if now - self._progress >= self._limit.kill_s:
                self._send(signal.SIGKILL)
            return
        self._progress, self._activity = now, moved

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _processes(self) -> tuple[Process, ...]:
        return processes_below(self._pid, keeps_names=self.keeps_names)


def activity_below(pid: int) -> Activity:
    """Return what was done in the PID namespace that process ``pid`` gives to its children.

    Found by namespace and not by parents: where proc is mounted with hidepid, process 1 of an
    ordinary user's container is not to be seen.
    """
    written = ticks = 0
    for entry in _entries_below(pid):
        with suppress(OSError, ValueError):
            ticks += _ticks(entry)
            written += io_of(entry, "wchar") or 0
    return Activity(written, ticks)


def processes_below(pid: int, *, keeps_names: bool) -> tuple[Process, ...]:
    """Return the processes in that PID namespace, but for xbuild's own.

    Some thousand at most, with what of their words is in the first 4 KiB: the guest's are as many
    and as long as it likes. With ``keeps_names`` an emulator has a program's path and then its
    argv[0] (the flag P).
    """
    found: list[Process] = []
    for entry in _entries_below(pid):
        if len(found) == _PROCESSES_LIMIT:
            break
        with suppress(OSError, IndexError):
            with open(f"/proc/{entry}/cmdline", encoding="utf-8", errors="surrogateescape") as file:
                said = file.read(_WORDS_LIMIT)
            argv = tuple(said.removesuffix("\0").split("\0")) if said else ()
            with open(f"/proc/{entry}/comm", encoding="utf-8", errors="surrogateescape") as file:
                name = file.read().rstrip("\n")
            if not name.startswith("xbuild-"):
                emulator = os.path.basename(argv[0]) if len(argv) > 1 + keeps_names else ""
                if emulator.startswith("qemu-") or emulator.endswith(BINFMT_P_SUFFIX):
                    words = argv[2:] if keeps_names else argv[1:]
                else:
                    words, emulator = argv or (name,), ""
                state, call = _fields(entry)[0], _call(entry)
                found.append(Process(int(entry), words, state, emulator, call))
    return tuple(found)


def _call(pid: str) -> int | None:
    """Return the system call that a process waits in; seen by root and by few others."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/syscall", encoding="ascii") as file:
        return int(file.read().split()[0])
    return None


def _entries_below(pid: int) -> Iterator[str]:
    with suppress(OSError):
        below = dict.fromkeys(_namespaces_below(pid), True)
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                namespace = os.readlink(f"/proc/{entry}/ns/pid")
                if namespace not in below:
                    below[namespace] = below.get(_parent_of(f"/proc/{entry}/ns/pid"), False)
                if below[namespace]:
                    yield entry


def _namespaces_below(pid: int) -> Iterator[str]:
    """Yield the PID namespaces that a process and its children give to their children."""
    with suppress(OSError):
        yield os.readlink(f"/proc/{pid}/ns/pid_for_children")
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = file.read().split()
        for child in children:
            yield os.readlink(f"/proc/{child}/ns/pid_for_children")


def _parent_of(namespace: str) -> str:
    """Return the PID namespace around one, "" for the caller's own (ioctl_ns(2))."""
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parent = fcntl.ioctl(fd, _NS_GET_PARENT)
    except PermissionError:
        return ""
    finally:
        os.close(fd)
    try:
        return os.readlink(f"/proc/self/fd/{parent}")
    finally:
        os.close(parent)


def _ticks(pid: str) -> int:
    return sum(int(field) for field in _fields(pid)[11:15])  # utime, stime, cutime, cstime


def _fields(pid: str) -> list[str]:
    """Return what /proc/PID/stat says after the name: the state first."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()
