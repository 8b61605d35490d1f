"""How the children of one run talk to the launcher: reports of failure, and id map requests."""

from __future__ import annotations

import marshal
import os

from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Phase = Literal["step", "exec", "loader", "flush", "serve"]

_LIMIT = 65536


class Report(Record):
    """Why a run could not start: the step's index in the plan, errno and what it was about.

    ``loader``: the command is there, but what the kernel needs to start it is not. ``flush``: it
    has run, but what it wrote could not be written back. ``serve``: a program that served the image
    ended before its time, by signal ``errno`` or, if 0, by itself.
    """

    phase: Phase
    index: int
    errno: int
    subject: str


class Gate:
    """A one-way signal between two processes: opened by one byte, closed by death."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def open(self) -> None:
        """Let the waiting process go on. Raises BrokenPipeError when it is gone."""
        os.write(self._write, b"\0")

    def descriptor(self) -> int:
        """Return the opening end: when the last process that has it closes it, ``wait`` returns."""
        return self._write

    def wait(self) -> bool:
        """Wait for the other side; False means that it died instead."""
        self.watch()
        return os.read(self._read, 1) != b""

    def watch(self) -> None:
        """Give up the opening end in this process, so that the other side's death shows."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def is_deserted(self) -> bool:
        """Tell, without waiting, whether the other side died; to be called after ``watch``."""
        os.set_blocking(self._read, False)
        try:
            return os.read(self._read, 1) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Give up both ends in this process; a second call does nothing."""
        self.watch()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1


class Reports:
    """The pipe that carries at most one Report; its end of file means that exec succeeded."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._content: bytes | None = None

    def send(self, report: Report) -> None:
        """Send from a child."""
        fields = (report.phase, report.index, report.errno, report.subject)
        os.write(self._write, marshal.dumps(fields))

    def descriptors(self) -> tuple[int, ...]:
        """Return what a child must keep open to be able to report."""
        return (self._write,)

    def descriptor(self) -> int:
        """Return what can be read when there is a report, and hangs up when there will be none."""
        return self._read

    def close_sender(self) -> None:
        """Let go of the sending end in this process."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def close(self) -> None:
        """Let go of both ends in this process; a second call does nothing."""
        self.close_sender()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    def wait(self, seconds: float) -> bool:
        """Wait so long until something can be received; False where it cannot."""
        import select  # off the start path

        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def receive(self) -> Report | None:
        """Wait for a report, or for None once every sender is gone (call in the launcher)."""
        if self._content is None:
            self._content = b""
            while chunk := os.read(self._read, _LIMIT):
                self._content += chunk
        return Report(*marshal.loads(self._content)) if self._content else None
