"""Signals as something to read, for loops that poll(2): signal.set_wakeup_fd().

Off the start path, but for terminals.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def woken_by_signals() -> Iterator[int]:
    """Give a descriptor that becomes readable with every signal handled, SIGCHLD among them."""
    alarm, bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    child_handler = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        yield alarm
    finally:
        signal.signal(signal.SIGCHLD, child_handler)
        signal.set_wakeup_fd(before)
        os.close(alarm)
        os.close(bell)
