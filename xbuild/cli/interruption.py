"""Signals by which a person or a service ends a command that has something to clear away first."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from xbuild.cli.output import note
from xbuild.errors import EXIT_SIGNAL_BASE

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal came; no Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def signals_raised() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise Interrupted; what is ignored, as by nohup(1), stays."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    heard = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell_interrupted(place: str, stop: Interrupted) -> int:
    """Say what became of ``place``, which appears whole or not at all; return the exit status."""
    if os.path.lexists(place):
        note(f"interrupted at the very end: {place} is made, and whole")
    else:
        note(f"interrupted: {place} is not made, and nothing of it is left")
    return EXIT_SIGNAL_BASE + stop.number
