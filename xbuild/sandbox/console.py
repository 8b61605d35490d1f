"""The console of a detached container: its output goes to a log, and to whoever is attached.

The launcher owns the controlling side of the container's terminal. Who attaches gets a copy of it
to write to and to size, and the output by socket, since of several readers each would get a part.
Loaded only for a container that is detached.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from xbuild.errors import SetupFailed
from xbuild.sandbox import _unix
from xbuild.sandbox.entry import CONSOLE
from xbuild.sandbox.terminal import ConsoleSender, read_some
from xbuild.sandbox.wakeup import woken_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from xbuild.sandbox.entry import Entry

LOG_LIMIT = 64 << 20  # bytes; then it begins anew, and what was is kept as NAME.log.1
_TAIL = 64 << 10  # bytes, for explaining a failure
_RECENT = 4096  # bytes of output that somebody who attaches is shown first
_PATIENCE_S = 10.0  # with somebody attached who does not read
_POLL_MS = 1000
_SIZE = b"\x18\0\x50\0\0\0\0\0"  # struct winsize: 24 lines, 80 columns
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


def log_directory() -> str:
    """Return where this user's logs are; unlike entries they outlive their containers."""
    if os.geteuid() == 0:
        return "/var/log/xbuild"
    state = os.environ.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        state = os.path.join(os.environ.get("HOME", "/"), ".local/state")
    return f"{state}/xbuild"


def log_path(name: str) -> str:
    """Return the log of the container called ``name``."""
    return f"{log_directory()}/{name}.log"


def end_of_log(path: str) -> bytes:
    """Return the last that a container wrote; nothing where it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read(_TAIL)
    except OSError:
        return b""


class Log:
    """A container's log, begun anew; carriage returns before line feeds are left out."""

    def __init__(self, path: str) -> None:
        """Open it. Raises SetupFailed."""
        self._path = path
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            self.fd = self._open()
        except OSError as error:
            raise SetupFailed(
                f"Cannot write the log {path}: {error.strerror}", "see XDG_STATE_HOME"
            ) from error
        self._size = 0
        self._return = b""  # a carriage return whose line feed may be to come

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)

    def tail(self) -> bytes:
        """Return the end of what was written; nothing where it cannot be read any more."""
        return end_of_log(self._path)

    def write(self, content: bytes) -> None:
        """Append; what the disk has no room for is lost, and the container goes on."""
        content = self._return + content
        self._return = b"\r" if content.endswith(b"\r") else b""
        content = content[: len(content) - len(self._return)]
        try:
            self._size += os.write(self.fd, content.replace(b"\r\n", b"\n"))
            if self._size > LOG_LIMIT:
                os.rename(self._path, f"{self._path}.1")
                fd = self._open()
                os.dup2(fd, self.fd, inheritable=False)
                os.close(fd)
                self._size = 0
        except OSError:
            return


class ShownConsole:
    """The console of a boot without a terminal: its output is standard output, and nobody types."""

    def __init__(self) -> None:
        """Prepare it."""
        self._link, theirs = socket.socketpair()
        self.sender = ConsoleSender(theirs, None, _SIZE)

    def last_output(self) -> bytes:
        """Return nothing: how a boot ended is not told by its last words."""
        return b""

    def run(self, ended: Callable[[], bool]) -> None:
        """Show until ``ended``; what nobody reads any more is lost."""
        self.sender.close()
        message, descriptors, _, _ = socket.recv_fds(self._link, 1, 1)
        self._link.close()
        if not message or not descriptors:
            return
        primary = descriptors[0]
        os.set_blocking(primary, False)
        poll = select.poll()
        poll.register(primary, select.POLLIN)
        with woken_by_signals() as alarm:
            poll.register(alarm, select.POLLIN)
            while True:
                ready = dict(poll.poll())
                if ready.get(primary, 0) and not self._show(primary):
                    break
                if alarm in ready:
                    os.read(alarm, _RECENT)
                    if ended():
                        break
        while self._show(primary):
            pass
        os.close(primary)

    def _show(self, primary: int) -> bool:
        content = unwritten = read_some(primary)
        with suppress(OSError):
            while unwritten:
                unwritten = unwritten[os.write(1, unwritten) :]
        return bool(content)


class Console:
    """The launcher's end, in place of a Relay."""

    def __init__(self, begun: Callable[[], None]) -> None:
        """Prepare it; ``begun`` is called once process 1 has a terminal."""
        self._begun = begun
        self._link, theirs = socket.socketpair()
        self.sender = ConsoleSender(theirs, None, _SIZE)
        self._primary = -1
        self._clients: dict[socket.socket, float] = {}  # blocked since when, 0 if it is not
        self._unsent: dict[socket.socket, bytes] = {}
        self._recent = b""

    def open(self, log: Log, entry: Entry) -> None:
        """Write to ``log``, and listen for those who attach. Raises OSError."""
        self.log = log
        with suppress(FileNotFoundError):
            os.unlink(entry.socket_path(CONSOLE))  # of the boot before
        listener = _unix.message_socket()
        _unix.listen_at(listener, entry.socket_path(CONSOLE))
        self._listener = socket.socket(fileno=listener)

    def last_output(self) -> bytes:
        """Return nothing: the log has it."""
        return b""

    def run(self, ended: Callable[[], bool]) -> None:
        """Serve until ``ended``."""
        self.sender.close()
        message, descriptors, _, _ = socket.recv_fds(self._link, 1, 1)
        self._link.close()
        if message and descriptors:
            self._begun()
            self._primary = descriptors[0]
            os.set_blocking(self._primary, False)
            with woken_by_signals() as alarm:
                self._serve(alarm, ended)
            os.close(self._primary)
        for client in tuple(self._clients):
            self._drop(client)
        self._listener.close()

    def _serve(self, alarm: int, ended: Callable[[], bool]) -> None:
        while True:
            ready = self._wait(alarm)
            if self._listener.fileno() in ready:
                self._accept()
            for client in tuple(self._clients):
                self._attend(client, ready.get(client.fileno(), 0))
            if ready.get(self._primary, 0) and not self._take_output():
                return
            if alarm in ready:
                os.read(alarm, _RECENT)
                if ended():
                    while self._take_output():
                        pass
                    return

    def _wait(self, alarm: int) -> dict[int, int]:
        poll = select.poll()
        poll.register(alarm, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        if not self._unsent:
            poll.register(self._primary, select.POLLIN)
        for client in self._clients:
            poll.register(client, select.POLLOUT if client in self._unsent else 0)
        return dict(poll.poll(_POLL_MS if self._unsent else None))

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        client.setblocking(False)
        self._clients[client] = 0.0
        try:
            socket.send_fds(client, [b"\0"], [self._primary])
        except OSError:
            self._drop(client)
            return
        if self._recent:
            self._send(client, self._recent)

    def _attend(self, client: socket.socket, events: int) -> None:
        if events & _GONE:
            self._drop(client)
        elif client in self._unsent:
            self._send(client, self._unsent.pop(client))

    def _take_output(self) -> bool:
        content = read_some(self._primary)
        self.log.write(content)
        self._recent = (self._recent + content)[-_RECENT:]
        for client in tuple(self._clients):
            if content:
                self._send(client, content)
        return bool(content)

    def _send(self, client: socket.socket, content: bytes) -> None:
        try:
            client.send(content)
            self._clients[client] = 0.0
        except BlockingIOError:
            now = time.monotonic()
            self._clients[client] = since = self._clients[client] or now
            self._unsent[client] = content
            if now - since > _PATIENCE_S:
                self._drop(client)
        except OSError:
            self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        del self._clients[client]
        self._unsent.pop(client, None)
        client.close()
