"""The container's pseudo-terminal and its relay: ioctl_tty(2), pty(7), termios(3).

A descriptor of the host's terminal never enters the container. Process 1 opens a pair on the
container's own devpts and hands the controlling side to the launcher, which copies bytes between
it and the host's terminal. This module is loaded only when a terminal takes part.

*Interactive* is a run whose input and output both are the terminal: the host's one is raw then,
and every key goes inside. Otherwise, as in ``xbuild run TREE -- make | less``, the host's terminal
keeps its modes, since it is others' as well, and sends whole lines.
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

from xbuild.sandbox.wakeup import woken_by_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from xbuild.sandbox.tap import Tap

    Attributes = list[Any] | None  # as termios.tcgetattr(): numbers, and a list of characters

# asm-generic/ioctls.h
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431

_CHUNK = 65536
_KEPT = 65536  # bytes of what was shown, for explaining a failure
_ECHO_FLAGS = termios.ECHO | termios.ECHONL
_OFLAG, _LFLAG, _CC = 1, 3, 6  # indexes of termios.tcgetattr's list
_BACKGROUND_POLL_MS = 250
_HANDLED = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class ConsoleSender:
    """The children's end: made before the fork, used by process 1 once."""

    def __init__(self, link: socket.socket, model: Attributes, size: bytes) -> None:
        """Send by ``link``; ``model`` are the modes that a new terminal gets, None its own."""
        self._link = link
        self._inside = -1
        self._model = model
        self._size = size

    @classmethod
    def like(cls, link: socket.socket, descriptors: tuple[int, ...]) -> ConsoleSender:
        """Model the terminal on the host's at ``descriptors``."""
        attributes = termios.tcgetattr(descriptors[0])
        if not is_interactive(descriptors):
            # The host's terminal keeps echoing and translating: twice would show.
            attributes[_LFLAG] &= ~_ECHO_FLAGS
            attributes[_OFLAG] &= ~termios.OPOST
        return cls(link, attributes, window_size(descriptors[0]))

    def close(self) -> None:
        """Give up this end in a process that does not use it."""
        self._link.close()

    def descriptors(self) -> tuple[int, ...]:
        """Return what process 1 must keep open: the link, and then the terminal's side inside.

        That one is open as long as the container lives, whatever the command does with its own:
        the launcher sees a hang-up when all is over, and not before.
        """
        return (self._link.fileno(),) if self._inside < 0 else (self._inside,)

    def furnish(self, primary: int) -> None:
        """Give a new terminal its modes and its size. Raises OSError."""
        if self._model is not None:
            termios.tcsetattr(primary, termios.TCSANOW, self._model)
        fcntl.ioctl(primary, termios.TIOCSWINSZ, self._size)

    def hand_over(self) -> str:
        """Open a pair on the container's devpts, send one side, return the path of the other.

        Raises OSError.
        """
        primary = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(primary, TIOCSPTLCK, struct.pack("i", 0))
        (number,) = struct.unpack("I", fcntl.ioctl(primary, TIOCGPTN, bytes(4)))
        path = f"/dev/pts/{number}"
        self._inside = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        self.furnish(primary)
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


class HostTerminal:
    """The terminal that xbuild was started on: read, written, made raw and restored."""

    def __init__(self, descriptors: tuple[int, ...]) -> None:
        self.is_interactive = is_interactive(descriptors)
        self.input = 0 if 0 in descriptors else -1
        self.output = _own_description(next((fd for fd in (1, 2) if fd in descriptors), 0))
        self._source = descriptors[0]
        self._saved = termios.tcgetattr(0) if self.is_interactive else None
        self._is_raw = False

    def close(self) -> None:
        """Restore the terminal and give up what was opened."""
        self.restore()
        if self.output > 2:
            os.close(self.output)

    def is_ours(self) -> bool:
        """Tell whether this process is in the foreground, or the terminal has no jobs for us."""
        try:
            return self.input < 0 or os.tcgetpgrp(self.input) == os.getpgrp()
        except OSError:
            return True

    def make_raw(self) -> None:
        """Let every key through, if that is wanted and not done."""
        if self._saved is not None and not self._is_raw:
            with contextlib.suppress(termios.error):  # it hung up, which poll will tell
                tty.setraw(0, termios.TCSANOW)
            self._is_raw = True

    def restore(self) -> None:
        """Set the attributes found at the beginning, if they were changed."""
        if self._saved is not None and self._is_raw:
            with contextlib.suppress(termios.error):  # it hung up
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
            self._is_raw = False

    def forget(self) -> None:
        """Take note that a shell may have changed the attributes, as it does after a stop."""
        self._is_raw = False

    def size(self) -> bytes:
        """Return its struct winsize. Raises OSError after a hang-up."""
        return window_size(self._source)


def _own_description(fd: int) -> int:
    """Open a terminal once more, so that not to block on it changes nothing for others."""
    try:
        return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return fd  # another user's, as after su(1), or not of this mount namespace


class Relay:
    """The launcher's end: copies bytes until the container is gone, then restores the terminal."""

    def __init__(self, descriptors: tuple[int, ...]) -> None:
        self._link, theirs = socket.socketpair()
        self.sender = ConsoleSender.like(theirs, descriptors)
        self._host = HostTerminal(descriptors)
        self._primary = -1  # to write to, and to size
        self._source = -1  # to read from
        self._typed = b""  # read from the host's terminal, not yet taken by the container's
        self._shown = b""  # the other way round
        self._last = bytearray()  # of all that was shown
        self.tap: Tap | None = None  # which is told of what is shown, and served meanwhile

    def run(self, ended: Callable[[], bool]) -> None:
        """Relay until ``ended`` says that the container is gone and its output is read.

        Returns earlier when the host's terminal hangs up: so does the container's then.
        """
        self.sender.close()
        message, descriptors, _, _ = socket.recv_fds(self._link, 1, 1)
        self._link.close()
        if message and descriptors:
            self.run_on(descriptors[0], ended)
        self._host.close()

    def close(self) -> None:
        """Let go of what a relay that was given a controlling side did not need."""
        self.sender.close()
        self._link.close()
        self._host.close()

    def run_on(self, primary: int, ended: Callable[[], bool], *, source: int = -1) -> None:
        """Do the same with a controlling side that is at hand, and close it.

        Output comes from ``source`` where others read the controlling side.
        """
        self._primary = primary
        self._source = primary if source < 0 else source
        os.set_blocking(primary, False)
        with woken_by_signals() as alarm, self._handlers():
            self._resize()
            self._copy(alarm, ended)
        os.close(primary)

    @contextlib.contextmanager
    def _handlers(self) -> Iterator[None]:
        """Follow the window's size, and let go of the terminal while this process is stopped."""
        before = {number: signal.getsignal(number) for number in _HANDLED}

        def handle(number: int, frame: object) -> None:
            if number == signal.SIGWINCH:
                self._resize()
            elif number == signal.SIGTSTP:
                self._host.restore()
            else:
                self._host.forget()
            handler = before[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)  # type: ignore[arg-type]  # nobody looks at the frame

        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, handle)
        try:
            yield
        finally:
            self._host.restore()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _resize(self) -> None:
        with contextlib.suppress(OSError):  # either side is gone
            fcntl.ioctl(self._primary, termios.TIOCSWINSZ, self._host.size())

    def _copy(self, alarm: int, ended: Callable[[], bool]) -> None:
        while True:
            ready = self._wait(alarm)
            if self.tap is not None:
                self.tap.attend(ready)
            if not self._read_typed(ready.get(self._host.input, 0)):
                self._last.clear()  # nobody is there to have anything explained
                return
            if self._typed:
                self._write_typed()
            if ready.get(self._source, 0) & (select.POLLIN | _GONE) and not self._read_shown():
                break
            if self._shown:
                self._write_shown()
            if alarm in ready:
                os.read(alarm, _CHUNK)
                if ended():
                    break
        self._drain()

    def _wait(self, alarm: int) -> dict[int, int]:
        """Return what happened on which descriptor, once something did."""
        is_ours = self._host.is_ours()
        if is_ours:
            self._host.make_raw()
        waits = self._shown or (self.tap is not None and self.tap.is_full)
        interest = {alarm: select.POLLIN, self._source: 0 if waits else select.POLLIN}
        if self.tap is not None:
            interest |= self.tap.interest()
        if self._typed:
            interest[self._primary] = interest.get(self._primary, 0) | select.POLLOUT
        if self._host.input >= 0:
            # Bounded: what was typed ahead waits in the host's terminal, not here.
            interest[self._host.input] = select.POLLIN if is_ours and not self._typed else 0
        if self._shown:
            interest[self._host.output] = interest.get(self._host.output, 0) | select.POLLOUT
        poll = select.poll()
        for fd, events in interest.items():
            poll.register(fd, events)
        return dict(poll.poll(None if is_ours else _BACKGROUND_POLL_MS))

    def _read_typed(self, events: int) -> bool:
        """Read what was typed, if anything was; False after a hang-up."""
        if events & select.POLLIN:
            self._typed = read_some(self._host.input)
            if self._typed or not events & _GONE:
                self._end_line()
                return True
        return not events & _GONE

    def _end_line(self) -> None:
        if self._host.is_interactive or self._typed.endswith((b"\n", b"\r")):
            return
        # A line ended by ^D, or the ^D of an empty one: the mark itself does not come through.
        attributes = termios.tcgetattr(self._primary)
        if attributes[_LFLAG] & termios.ICANON:
            self._typed += attributes[_CC][termios.VEOF]

    def _write_typed(self) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                self._typed = self._typed[os.write(self._primary, self._typed) :]
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                self._typed = b""  # nobody is left inside to read it

    def _read_shown(self) -> bool:
        if not self._shown:
            self._shown = read_some(self._source)
            self._last += self._shown
            if len(self._last) > 2 * _KEPT:
                del self._last[:-_KEPT]
            if self.tap is not None and self._shown:
                self.tap.heard("terminal", self._shown)
        return bool(self._shown)

    def last_output(self) -> bytes:
        """Return the last that was shown, up to 64 KiB."""
        return bytes(self._last[-_KEPT:])

    def _write_shown(self) -> None:
        try:
            self._shown = self._shown[os.write(self._host.output, self._shown) :]
        except BlockingIOError:
            return
        except OSError:
            self._shown = b""  # nobody looks any more; the command's status still counts

    def _drain(self) -> None:
        """Show what is left, at the pace of whoever looks."""
        poll = select.poll()
        poll.register(self._host.output, select.POLLOUT)
        while self._shown or (self._has_output() and self._read_shown()):
            poll.poll()
            self._write_shown()

    def _has_output(self) -> bool:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        return any(events & select.POLLIN for _, events in poll.poll(0))


def read_some(fd: int) -> bytes:
    """Read what is there; nothing at the end of file or after a hang-up."""
    try:
        return os.read(fd, _CHUNK)
    except OSError as error:
        if error.errno in (errno.EIO, errno.EAGAIN):
            return b""
        raise
