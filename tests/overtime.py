"""A limit for what one test takes: a single one that hangs is a failure, and the rest go on.

By a timer of the process rather than by a thread, as the tests fork and make user namespaces. Who
waits for a process by way of ``with`` would wait again: so all of the test's processes are ended.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tests import leftovers

LIMIT_S = 1200.0
"""Several times what the longest takes on a machine that is busy with other things."""

_AGAIN_S = 20.0


class Overtime(BaseException):
    """A test was still running when its time was up; no Exception, which a test may handle."""


@contextmanager
def limited(limit_s: float = LIMIT_S) -> Iterator[None]:
    """Raise Overtime in a block that takes longer, with an end to every process begun in it.

    Not while the block has a timer of its own (ITIMER_REAL).
    """
    before = leftovers.descendants()

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        begun = {p: text for p, text in leftovers.descendants().items() if p not in before}
        leftovers.kill(begun)
        raise Overtime(f"still running after {limit_s:g} s, with {list(begun.values())}")

    handler = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, limit_s, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
