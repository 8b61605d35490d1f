"""What the command writes, passed on by the launcher, and shown to those who asked for it.

A plan with pipes (``Exec.piped``) gives the command pipes in place of descriptors 1 and 2. The
launcher reads them and writes each byte on, in the order of its stream, to where it would have
gone. What the container's terminal shows is told by its relay. Everything is done in one loop: a
reader who is slow holds the command back, as it would without.

Off the start path: a run has this only where something needs to see its output.
"""

from __future__ import annotations

import os
import select
import stat
import time
from typing import TYPE_CHECKING

from xbuild.sandbox.outlet import Outlet
from xbuild.sandbox.wakeup import woken_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal, Protocol

    from xbuild.plan.steps import Exec

    Stream = Literal["stdout", "stderr", "both", "terminal"]

    class Listener(Protocol):
        """Who is told of output as it comes, in the launcher."""

        def heard(self, stream: Stream, content: bytes) -> None:
            """Take note of some bytes; ``both`` are standard output and error in one file."""


KEPT_BYTES = 64 << 10
_CHUNK = 65536
_LONGEST_LINE = 4096  # that is kept in one piece among those of other streams
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL
_PATIENCE_S = 10.0  # at the end, with a listener's reader that does not read


class Tail:
    """The last bytes of a stream, and how many there were in all."""

    def __init__(self, limit: int) -> None:
        self.count = 0
        self._limit = limit
        self._content = bytearray()

    def add(self, content: bytes) -> None:
        """Append; what is too old is forgotten."""
        self.count += len(content)
        self._content += content
        if len(self._content) > 2 * self._limit:
            del self._content[: -self._limit]

    def content(self) -> bytes:
        """Return the last bytes, as many as are kept."""
        return bytes(self._content[-self._limit :])


class _AllLines(Tail):
    """The last bytes of all streams: lines as they were finished, none within another."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._begun: dict[Stream, bytes] = {}

    def put(self, stream: Stream, content: bytes) -> None:
        """Append what is whole of a stream; the beginning of a line waits for its end."""
        whole, end, begun = (self._begun.get(stream, b"") + content).rpartition(b"\n")
        if len(begun) > _LONGEST_LINE:
            whole, end, begun = whole + end, begun, b""
        self._begun[stream] = begun
        self.add(whole + end)

    def content(self) -> bytes:
        """Return the last bytes, those of lines without an end last."""
        return (super().content() + b"".join(self._begun.values()))[-self._limit :]


class _Pump:
    """One pipe of the command's, and where its bytes go; ``outlet`` is None for nowhere."""

    def __init__(self, stream: Stream, outlet: Outlet | None) -> None:
        self.stream = stream
        self.outlet = outlet
        self.source, self.sender = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.source, False)

    def close(self) -> None:
        """Give up the reading end: the command's next write fails then, as it would without."""
        if self.source >= 0:
            os.close(self.source)
            self.source = -1


class Tap:
    """The output of one run, seen by the launcher.

    ``kept_bytes`` of each stream are kept for ``tail``; unless it ``passes_on``, output goes to
    the listeners alone. To be used for one run.
    """

    def __init__(self, *, kept_bytes: int = KEPT_BYTES, passes_on: bool = True) -> None:
        self._kept_bytes = kept_bytes
        self._passes_on = passes_on
        self._pumps: list[_Pump] = []
        self._tails: dict[Stream, Tail] = {}
        self._all = _AllLines(kept_bytes)
        self._listeners: list[Listener] = []
        self._outlets: list[Outlet] = []
        self._awaited: dict[int, Callable[[int], None]] = {}
        self._is_hurried = False

    def add(self, listener: Listener, outlet: Outlet | None = None) -> None:
        """Tell ``listener`` of all output; the command waits while its ``outlet`` is full."""
        self._listeners.append(listener)
        if outlet is not None:
            self._outlets.append(outlet)

    def tail(self, stream: Stream | None = None) -> bytes:
        """Return the last bytes of a stream; for None the lines of all, as they were finished."""
        kept = self._all if stream is None else self._tails.get(stream)
        return b"" if kept is None else kept.content()

    def count(self, stream: Stream | None = None) -> int:
        """Return how many bytes were written to a stream; to all of them for None."""
        kept = tuple(self._tails) if stream is None else (stream,)
        return sum(self._tails[each].count for each in kept if each in self._tails)

    def losses(self) -> Iterator[str]:
        """Yield what could not be passed on, where somebody still wanted it."""
        for pump in self._pumps:
            outlet = pump.outlet
            if outlet is not None and outlet.lost is not None and not outlet.is_closed():
                where = "standard error" if pump.stream == "stderr" else "standard output"
                yield f"{where} could not be written to: {outlet.lost.strerror}"

    def open(self, command: Exec) -> tuple[int, int]:
        """Make the pipes that a command wants, and return what becomes its descriptors 1 and 2.

        -1 is one that stays as it is. The ends belong to the caller.
        """
        wanted = [number for number in (1, 2) if number in command.piped]
        if len(wanted) == 2 and self._passes_on and _are_one_file():
            pump = self._new_pump("both", 1)
            return pump.sender, pump.sender
        senders = {n: self._new_pump("stdout" if n == 1 else "stderr", n).sender for n in wanted}
        return senders.get(1, -1), senders.get(2, -1)

    def sources(self) -> tuple[int, ...]:
        """Return the reading ends of the pipes: no other process may keep one."""
        return tuple(pump.source for pump in self._pumps if pump.source >= 0)

    def _new_pump(self, stream: Stream, fd: int) -> _Pump:
        outlet = Outlet(fd) if self._passes_on else None
        self._pumps.append(_Pump(stream, outlet))
        return self._pumps[-1]

    def when_ready(self, fd: int, act: Callable[[int], None]) -> None:
        """Call ``act`` once, with poll(2)'s events, when ``fd`` can be read or has hung up."""
        self._awaited[fd] = act

    def heard(self, stream: Stream, content: bytes) -> None:
        """Take note of output; the terminal's relay calls this as well."""
        self._tails.setdefault(stream, Tail(self._kept_bytes)).add(content)
        self._all.put(stream, content)
        for listener in self._listeners:
            listener.heard(stream, content)

    @property
    def is_full(self) -> bool:
        """Whether no more output should be read for now, for a listener cannot keep up."""
        return any(outlet.is_full for outlet in self._outlets)

    def run(self, ended: Callable[[], bool]) -> None:
        """Relay until ``ended`` says that the container is gone, and all is passed on."""
        with woken_by_signals() as alarm:
            while not ended():
                ready = self._poll(self.interest() | {alarm: select.POLLIN})
                self.attend(ready)
                if alarm in ready:
                    os.read(alarm, _CHUNK)
            self._finish()

    def interest(self) -> dict[int, int]:
        """Return which events are waited for on which descriptor: poll(2)."""
        found = dict.fromkeys(self._awaited, select.POLLIN)
        for outlet in self._all_outlets():
            if outlet.waits:
                found[outlet.fd] = select.POLLOUT
        if not self.is_full:
            for pump in self._pumps:
                if pump.source >= 0 and not (pump.outlet is not None and pump.outlet.is_full):
                    found[pump.source] = select.POLLIN
        return found

    def attend(self, ready: dict[int, int]) -> None:
        """Do what can be done after a poll(2) for ``interest``."""
        for fd in self._awaited.keys() & ready.keys():
            self._awaited.pop(fd)(ready[fd])
        for outlet in self._all_outlets():
            if outlet.waits and ready.get(outlet.fd, 0) & (select.POLLOUT | _GONE):
                outlet.write_some()
        for pump in self._pumps:
            if pump.outlet is not None and pump.outlet.lost is not None:
                pump.close()
            if ready.get(pump.source, 0):
                self._take(pump)

    def hurry(self) -> None:
        """Wait for no reader for long once the container has ended: its time is up."""
        self._is_hurried = True

    def close(self) -> None:
        """Give up the pipes; a second call does nothing."""
        for pump in self._pumps:
            pump.close()

    def _all_outlets(self) -> list[Outlet]:
        return [*(p.outlet for p in self._pumps if p.outlet is not None), *self._outlets]

    def _take(self, pump: _Pump) -> bool:
        try:
            content = os.read(pump.source, _CHUNK)
        except BlockingIOError:
            return False
        if not content:
            pump.close()
            return False
        self.heard(pump.stream, content)
        if pump.outlet is not None:
            pump.outlet.put(content)
        return True

    def _finish(self) -> None:
        """Pass on what is left, at the pace of whoever reads; listeners' readers have less time."""
        for pump in self._pumps:
            while pump.source >= 0 and self._take(pump):
                self.flush()
        self.flush()

    def flush(self) -> None:
        """Write what waits; a listener's reader, and in a hurry any, has ten seconds for a part."""
        patient_until = time.monotonic() + _PATIENCE_S
        while waiting := [outlet for outlet in self._all_outlets() if outlet.waits]:
            interest = {outlet.fd: select.POLLOUT for outlet in waiting}
            ready = self._poll(interest, _PATIENCE_S)
            if ready:
                patient_until = time.monotonic() + _PATIENCE_S
            elif time.monotonic() >= patient_until:
                self._lose_patience()
            self.attend(ready)

    def _lose_patience(self) -> None:
        for outlet in self._all_outlets() if self._is_hurried else self._outlets:
            if outlet.waits:
                outlet.lose(TimeoutError("nobody reads it"))

    @staticmethod
    def _poll(interest: dict[int, int], seconds: float | None = None) -> dict[int, int]:
        poll = select.poll()
        for fd, events in interest.items():
            poll.register(fd, events)
        return dict(poll.poll(None if seconds is None else seconds * 1000))


def _are_one_file() -> bool:
    """Tell whether standard output and error are one file: the order in it is kept then."""
    one, other = os.fstat(1), os.fstat(2)
    if stat.S_ISCHR(one.st_mode) and not os.isatty(1):
        return False  # /dev/null, in which there is none
    return (one.st_dev, one.st_ino, one.st_rdev) == (other.st_dev, other.st_ino, other.st_rdev)
