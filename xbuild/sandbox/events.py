"""The life of a run as lines of JSON, for machines: schema ``xbuild.events/1`` of docs/json.md.

Each event is one line. A consumer who is slow holds the command back; one who is gone is done
without. Off the start path: loaded for ``--events``.
"""

from __future__ import annotations

import base64
import codecs
import json
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xbuild.errors import XbuildError
    from xbuild.sandbox.deadline import Process
    from xbuild.sandbox.outlet import Outlet
    from xbuild.sandbox.tap import Stream, Tap
    from xbuild.sandbox.usage import Usage

SCHEMA = "xbuild.events/1"
_SIGNAL_BASE = 128
_LAST_SIGNAL = 64


class EventStream:
    """Writes events to an ``outlet``, which whoever has it empties: a Tap, or ``flush``."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self._began = time.monotonic()
        self._decoders: dict[Stream, _Pieces] = {}

    def started(self, version: str, target: str, argv: tuple[str, ...]) -> None:
        """Say what was asked for: the first event."""
        said = {"schema": SCHEMA, "version": version, "target": target, "argv": list(argv)}
        self._put("started", **said, began=time.time())

    def step(self, name: str, container: str | None = None) -> None:
        """Say what begins now."""
        self._put("step", name=name, container=container)

    def note(self, text: str) -> None:
        """Say what a person should know."""
        self._put("note", text=text)

    def heard(self, stream: Stream, content: bytes) -> None:
        """Say what the command wrote."""
        pieces = self._decoders.setdefault(stream, _Pieces())
        self._output(stream, *pieces.next(content))

    def time_is_up(self, why: str, processes: tuple[Process, ...]) -> None:
        """Say that the clock ends the run, and what there was."""
        found = [{"pid": p.pid, "argv": list(p.argv), "state": p.state} for p in processes]
        self._put("hang", why=why, processes=found)

    def command_began(self, name: str | None) -> None:
        """Say that the command runs."""
        self.step("command", name)

    def command_ended(self) -> None:
        """Say that the container is gone, and what of its output was still undecided."""
        for stream, pieces in self._decoders.items():
            self._output(stream, *pieces.last())
        self.step("end")

    def resources(self, usage: Usage | None, tap: Tap) -> None:
        """Say what was used."""
        self._put(
            "resources",
            wall_s=self._now(),
            user_s=None if usage is None else usage.user_s,
            system_s=None if usage is None else usage.system_s,
            peak_memory=None if usage is None else usage.peak_memory,
            peak_of=None if usage is None else usage.peak_of,
            written=None if usage is None else usage.written,
            stored=None if usage is None else usage.stored,
            output=tap.count(),
        )

    def exit(self, status: int, error: XbuildError | None) -> None:
        """Say how it ended: the last event."""
        number = status - _SIGNAL_BASE
        is_signal = error is None and 0 < number <= _LAST_SIGNAL
        self._put(
            "exit",
            status=status,
            signal=number if is_signal else None,
            error=None if error is None else type(error).__name__,
            message=None if error is None else error.message,
            hint=None if error is None else error.hint or None,
        )

    def _output(self, stream: Stream, text: str, content: bytes | None) -> None:
        if text:
            encoded = None if content is None else base64.b64encode(content).decode("ascii")
            self._put("output", stream=stream, text=text, base64=encoded)

    def _now(self) -> float:
        return round(time.monotonic() - self._began, 6)

    def _put(self, event: str, **said: object) -> None:
        line = json.dumps({"event": event, "at_s": self._now(), **said})
        self.outlet.put(line.encode("ascii") + b"\n")


class _Pieces:
    """Takes a stream of bytes apart into texts, without cutting characters in two."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")

    def next(self, content: bytes) -> tuple[str, bytes | None]:
        """Return the text of some bytes, and those very bytes where they are no text."""
        return self._decoded(content, final=False)

    def last(self) -> tuple[str, bytes | None]:
        """Return what is left."""
        return self._decoded(b"", final=True)

    def _decoded(self, content: bytes, *, final: bool) -> tuple[str, bytes | None]:
        waiting, _ = self._decoder.getstate()
        try:
            return self._decoder.decode(content, final), None
        except UnicodeDecodeError:
            self._decoder.reset()
            content = waiting + content
            return content.decode("utf-8", "replace"), content
