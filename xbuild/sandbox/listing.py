"""The containers that are running: read from their entries, proved alive, found by name or tree.

An entry counts if its lock is held and somebody listens at its socket; the kernel says who that is
(SO_PEERCRED, unix(7)), and a descriptor of the process is had before that is looked at once more.
What is stale is removed on the way. Off the start path.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from xbuild.errors import NoSuchContainer
from xbuild.record import HostPath, Record
from xbuild.sandbox import _unix
from xbuild.sandbox.entry import CONTROL, ENTRY, open_state_directory, remove_stale

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAUSE_S = 0.02
_APPEARS_WITHIN_S = 1.0


class Running(Record):
    """A container that lives. ``pid`` is its launcher, ``began`` seconds since the epoch.

    ``has_console``: it was detached, and one can attach. ``is_booted``: an init is process 1 of it.
    """

    name: str
    tree: HostPath
    pid: int
    argv: tuple[str, ...]
    began: float
    is_ephemeral: bool
    has_console: bool
    is_booted: bool


class Handle:
    """A running container held on to: whatever ends meanwhile, no other one is hit."""

    def __init__(self, running: Running, entry_fd: int, pidfd: int) -> None:
        self.running = running
        self._entry_fd = entry_fd
        self._pidfd = pidfd

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._entry_fd)
        os.close(self._pidfd)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the launcher, which passes it on; nothing happens where it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for the launcher's end; False where that takes longer."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))

    def wait_for_all(self) -> int | None:
        """Wait for the end of all in it, and return the exit status; None after a SIGKILL."""
        _unix.flock(self._entry_fd, _unix.LOCK_SH)
        status = _fields(self._entry_fd).get("status", [""])[0]
        return int(status) if status else None

    def kill(self) -> None:
        """Kill what is below the launcher, which then tidies up and says how it ended."""
        for pid in _children(self.running.pid):
            with suppress(OSError):
                pidfd = os.pidfd_open(pid)
                try:
                    if pid in _children(self.running.pid):  # no other one has its number now
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)


def running() -> tuple[Running, ...]:
    """Return this user's containers by name."""
    found = []
    for handle in _handles():
        with handle:
            found.append(handle.running)
    return tuple(sorted(found, key=lambda each: each.name))


def find(name_or_tree: str) -> Handle:
    """Return the container of that name, or the only one on that tree. Raises NoSuchContainer."""
    tree = os.path.realpath(name_or_tree)
    handles = list(_handles())
    chosen = [h for h in handles if h.running.name == name_or_tree]
    chosen = chosen or [h for h in handles if h.running.tree == tree]
    for handle in handles:
        if len(chosen) != 1 or handle is not chosen[0]:
            handle.__exit__()
    if not chosen:
        names = ", ".join(sorted(h.running.name for h in handles))
        raise NoSuchContainer(
            f"No running container is called {name_or_tree}, nor runs on such a tree",
            f"running are: {names}" if names else "none of yours is running: xbuild ps",
        )
    if len(chosen) > 1:
        names = ", ".join(sorted(h.running.name for h in chosen))
        raise NoSuchContainer(
            f"Several containers run on {name_or_tree}: {names}", "name one of them"
        )
    return chosen[0]


def connect(name: str, suffix: str) -> socket.socket:
    """Connect to a container's socket. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        directory = open_state_directory(make=False)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{name}{suffix}")
        finally:
            os.close(directory)
    except OSError:
        connection.close()
        raise
    return connection


def _handles() -> Iterator[Handle]:
    try:
        directory = open_state_directory(make=False)
    except OSError:
        return
    try:
        for file in sorted(os.listdir(f"/proc/self/fd/{directory}")):
            if file.endswith(ENTRY):
                handle = _open(directory, file.removesuffix(ENTRY))
                if handle is not None:
                    yield handle
    finally:
        os.close(directory)


def _open(directory: int, name: str) -> Handle | None:
    """Return a container if it is alive; else see to it that its entry is gone."""
    deadline = time.monotonic() + _APPEARS_WITHIN_S
    while not remove_stale(directory, name):
        try:
            fd = os.open(name + ENTRY, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            return None
        handle = _proved(name, fd)
        if handle is not None:
            return handle
        os.close(fd)
        if time.monotonic() > deadline:  # it starts, or ends, and is stopped meanwhile
            return None
        time.sleep(_PAUSE_S)
    return None


def _proved(name: str, fd: int) -> Handle | None:
    pidfd = -1
    try:
        with connect(name, CONTROL) as connection:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid, uid, _ = struct.unpack("iII", credentials)
            if uid != os.geteuid():
                return None
            pidfd = os.pidfd_open(pid)
        connect(name, CONTROL).close()  # somebody still listens: the number is not another's
        fields = _fields(fd)
        running = Running(
            name,
            HostPath(fields["tree"][0]),
            pid,
            tuple(fields.get("argv", ())),
            os.fstat(fd).st_mtime,
            fields["is_ephemeral"] == ["1"],
            fields["has_console"] == ["1"],
            fields["is_booted"] == ["1"],
        )
    except (OSError, KeyError):
        if pidfd >= 0:
            os.close(pidfd)
        return None
    return Handle(running, fd, pidfd)


def _fields(fd: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    content = os.pread(fd, os.fstat(fd).st_size, 0)
    for line in content.removesuffix(b"\n").split(b"\n"):
        key, _, value = line.partition(b"=")
        plain = b"\\".join(part.replace(rb"\n", b"\n") for part in value.split(rb"\\"))
        found.setdefault(key.decode(), []).append(os.fsdecode(plain))
    return found


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]
