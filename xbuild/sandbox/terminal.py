"""The container's pseudo-terminal and its relay: ioctl_tty(2), pty(7), termios(3).

A descriptor of the host's terminal never enters the container. Process 1 opens a pair on the
container's own devpts and hands the controlling side to the launcher, which copies bytes between
it and the host's terminal. This module is loaded only when a terminal takes part.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


# asm-generic/ioctls.h
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431

_CHUNK = 65536
_ECHO_FLAGS = termios.ECHO | termios.ECHONL


class ConsoleSender:
    """The children's end: made before the fork, used by process 1 once."""

    def __init__(self, link: socket.socket, descriptors: tuple[int, ...]) -> None:
        self._link = link
        self._raw = is_interactive(descriptors)
        source = descriptors[0]
        self._attributes = termios.tcgetattr(source)
        self._size = window_size(source)

    def close(self) -> None:
        """Give up this end in a process that does not use it."""
        self._link.close()

    def descriptors(self) -> tuple[int, ...]:
        """Return what process 1 must keep open until it hands over."""
        return (self._link.fileno(),)

    def hand_over(self) -> str:
        """Open a pair on the container's devpts, send one side, return the path of the other.

        The side inside is left open, so that the launcher sees no hang-up before the command
        opened it. Raises OSError.
        """
        primary = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(primary, TIOCSPTLCK, struct.pack("i", 0))
        (number,) = struct.unpack("I", fcntl.ioctl(primary, TIOCGPTN, bytes(4)))
        path = f"/dev/pts/{number}"
        os.open(path, os.O_RDWR | os.O_NOCTTY)
        attributes = list(self._attributes)
        if not self._raw:
            # The host's terminal keeps echoing and translating: twice would show.
            attributes[3] &= ~_ECHO_FLAGS
            attributes[1] &= ~termios.OPOST
        termios.tcsetattr(primary, termios.TCSANOW, attributes)
        fcntl.ioctl(primary, termios.TIOCSWINSZ, self._size)
        socket.send_fds(self._link, [b"\0"], [primary])
        self._link.close()
        os.close(primary)
        return path


def is_interactive(descriptors: tuple[int, ...]) -> bool:
    """Tell whether input and output both are the terminal, as a shell or an editor needs."""
    return 0 in descriptors and 1 in descriptors


def window_size(fd: int) -> bytes:
    """Return the struct winsize of a terminal."""
    return fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))


class Relay:
    """The launcher's end: copies bytes until the container is gone, then restores the terminal."""

    def __init__(self, descriptors: tuple[int, ...]) -> None:
        self._descriptors = descriptors
        self._link, theirs = socket.socketpair()
        self.sender = ConsoleSender(theirs, descriptors)
        self._interactive = is_interactive(descriptors)
        self._output = next((fd for fd in (1, 2) if fd in descriptors), None)
        self._reads_input = 0 in descriptors
        self._saved = termios.tcgetattr(0) if self._interactive else None
        self._primary = -1
        self._typed = b""  # read from the host's terminal, not yet taken by the container's

    def run(self, ended: Callable[[], bool]) -> None:
        """Relay until ``ended`` says that the container is gone and its output is read."""
        self.sender.close()
        message, descriptors, _, _ = socket.recv_fds(self._link, 1, 1)
        self._link.close()
        if not message or not descriptors:
            return
        self._primary = descriptors[0]
        os.set_blocking(self._primary, False)
        wake_up, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGWINCH, lambda *_: self._resize())
        try:
            if self._interactive:
                tty.setraw(0, termios.TCSADRAIN)
            self._resize()
            self._copy(wake_up, ended)
        finally:
            self._restore()
            signal.set_wakeup_fd(-1)
            for fd in (wake_up, alarm, self._primary):
                os.close(fd)

    def _restore(self) -> None:
        if self._saved is not None:
            with contextlib.suppress(termios.error):  # the terminal itself is gone
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)

    def _resize(self) -> None:
        source = self._descriptors[0]
        with contextlib.suppress(OSError):  # the terminal itself is gone
            fcntl.ioctl(self._primary, termios.TIOCSWINSZ, window_size(source))

    def _copy(self, wake_up: int, ended: Callable[[], bool]) -> None:
        while True:
            inputs = [self._primary, wake_up]
            # Bounded: what was typed ahead waits in the host's terminal, not here.
            if self._reads_input and not self._typed:
                inputs.append(0)
            outputs = [self._primary] if self._typed else []
            ready, writable, _ = select.select(inputs, outputs, ())
            if 0 in ready:
                self._typed = read_some(0)
                self._reads_input = bool(self._typed)
            if writable:
                self._typed = self._typed[os.write(self._primary, self._typed) :]
            if self._primary in ready and not self._copy_output():
                return
            if wake_up in ready:
                os.read(wake_up, _CHUNK)
                if ended():
                    self._drain()
                    return

    def _drain(self) -> None:
        while select.select([self._primary], (), (), 0)[0] and self._copy_output():
            continue

    def _copy_output(self) -> bool:
        shown = read_some(self._primary)
        if shown and self._output is not None:
            try:
                write_all(self._output, shown)
            except OSError:
                self._output = None  # nobody looks any more; the command's status still counts
        return bool(shown)


def read_some(fd: int) -> bytes:
    """Read what is there; nothing at the end of file or after a hang-up."""
    try:
        return os.read(fd, _CHUNK)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


def write_all(fd: int, content: bytes) -> None:
    """Write everything, however often it takes."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]
