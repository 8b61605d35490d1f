"""Control groups of one run: made before its first process, removed after its last one.

A *keeper* outside of the container sees to the removal even if the launcher is killed: it waits for
the end of a pipe that the launcher holds. Off the start path: loaded where a limit was asked for.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from xbuild.errors import SetupFailed
from xbuild.record import HostPath
from xbuild.sandbox import _linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from xbuild.plan.limits import ControlGroup, LimitResources
else:
    import _signal as signal

GUESTS, OURS = "guest", "xbuild"  # in a group that is delegated
_PATIENCE_S = 120.0  # on a busy machine many killed processes take their time
_PAUSE_S = 0.02
_OPTIONAL = frozenset(("memory.memsw.limit_in_bytes", "memory.swap.max"))  # of kernels with swap


class ControlGroups:
    """The groups of one run; as a context they are removed at its end."""

    def __init__(self, step: LimitResources) -> None:
        """Make them. Raises SetupFailed, with nothing left behind."""
        name = f"xbuild-{os.getpid()}"
        self._paths = tuple(HostPath(f"{group.parent}/{name}") for group in step.groups)
        self._homes = tuple(group.home for group in step.groups)
        pairs = tuple(zip(step.groups, self._paths, strict=True))
        self.delegated = next((path for group, path in pairs if group.is_delegated), "")
        self._keeper, self._line = _start_keeper(self._paths)
        try:
            for group, path in pairs:
                _make(group, path)
                if group.is_delegated:
                    _divide(path)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> ControlGroups:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._line)
        os.waitpid(self._keeper, 0)

    def entered(self) -> _Entered:
        """Return a context in which this process, and any child it makes, is in them."""
        entered = tuple(f"{p}/{OURS}" if p == self.delegated else p for p in self._paths)
        return _Entered(entered, self._homes)

    def what_was_hit(self) -> tuple[str, ...]:
        """Tell which limits the run came up against, in words."""
        found = []
        for path in self._paths:
            killed = _counted(f"{path}/memory.events", "oom_kill") or _counted(
                f"{path}/memory.oom_control", "oom_kill"
            )
            if killed:
                found.append(f"the memory limit was reached, and processes were killed: {killed}")
            refused = _counted(f"{path}/pids.events", "max")
            if refused:
                found.append(f"the limit on processes was reached, and forks failed: {refused}")
        return tuple(found)

    def peak_memory(self) -> int | None:
        """Return the most bytes that they had at a time; None where nobody has counted."""
        for path in self._paths:
            for name in ("memory.peak", "memory.max_usage_in_bytes"):
                try:
                    with open(f"{path}/{name}", encoding="ascii") as file:
                        return int(file.read())
                except (OSError, ValueError):
                    continue
        return None


class _Entered:
    """A stay of this process in control groups."""

    def __init__(self, paths: tuple[str, ...], homes: tuple[HostPath, ...]) -> None:
        self._paths = paths
        self._homes = homes

    def __enter__(self) -> None:
        """Move in. Raises SetupFailed."""
        for path in self._paths:
            _join(path)

    def __exit__(self, *_exception: object) -> None:
        for path in self._homes:
            _join(path)


def _make(group: ControlGroup, path: str) -> None:
    try:
        os.mkdir(path)
    except OSError as error:
        raise SetupFailed(
            f"Cannot make the control group {path}: {error.strerror}",
            "see docs/limits.md for who may",
        ) from error
    for name, value in group.settings:
        try:
            _write(f"{path}/{name}", value)
        except OSError as error:
            if name in _OPTIONAL and isinstance(error, FileNotFoundError):
                continue
            raise SetupFailed(
                f"Cannot set {name} to {value} in {path}: {error.strerror}",
                "this kernel has no such limit"
                if isinstance(error, FileNotFoundError)
                else "another value may do; see docs/limits.md",
            ) from error


def _divide(path: str) -> None:
    """Make a group for the guest and one for xbuild's own, with what controllers there are."""
    try:
        with open(f"{path}/cgroup.controllers", encoding="ascii") as file:
            controllers = file.read().split()
        for name in (GUESTS, OURS):
            os.mkdir(f"{path}/{name}")
    except OSError as error:
        raise SetupFailed(
            f"Cannot divide the control group {path}: {error.strerror}",
            "see docs/limits.md for who may",
        ) from error
    for name in controllers:
        with suppress(OSError):  # the guest does without
            _write(f"{path}/cgroup.subtree_control", f"+{name}")


def _join(path: str) -> None:
    try:
        _write(f"{path}/cgroup.procs", "0")
    except OSError as error:
        raise SetupFailed(
            f"Cannot enter the control group {path}: {error.strerror}",
            "see docs/limits.md for who may",
        ) from error


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _counted(path: str, name: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            pairs = [line.split() for line in file]
    except OSError:
        return 0
    return sum(int(pair[1]) for pair in pairs if pair[0] == name)


def _start_keeper(paths: tuple[HostPath, ...]) -> tuple[int, int]:
    """Return a process that removes directories once the descriptor returned is closed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reading)
        return pid, writing
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        os.dup2(reading, 0)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        _linux.close_range(3, 2**32 - 1)
        _linux.prctl_name(b"xbuild-limits")
        os.read(0, 1)
        _remove_patiently(paths)
    finally:
        os._exit(0)


def _remove_patiently(paths: tuple[HostPath, ...]) -> None:
    """Remove groups as soon as their last process is gone, which the kernel ends in its time."""
    deadline = time.monotonic() + _PATIENCE_S
    left = list(paths)
    while left and time.monotonic() < deadline:
        for path in tuple(left):
            with suppress(OSError):
                _remove(path)
                left.remove(path)
        if left:
            time.sleep(_PAUSE_S)


def _remove(path: HostPath) -> None:
    """Remove a group with those in it, which a guest may have made, deeper than any path reaches.

    Changes the working directory. Raises OSError.
    """
    os.chdir(path)
    way: list[str] = []
    while True:
        with os.scandir(".") as entries:
            inner = next(
                (each.name for each in entries if each.is_dir(follow_symlinks=False)), None
            )
        if inner is not None:
            os.chdir(inner)
            way.append(inner)
        elif way:
            os.chdir("..")
            os.rmdir(way.pop())
        else:
            break
    os.chdir("/")
    os.rmdir(path)
