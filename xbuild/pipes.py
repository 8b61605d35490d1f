"""Opening what may be a named pipe, without waiting for its other end for ever.

Off the start path: loaded where a file is named that people hand over by a pipe.
"""

from __future__ import annotations

import errno
import os
import select
import stat

_PATIENCE_S = 10.0


def with_patience(path: str, flags: int) -> int:
    """Open a file to be read: an opener for open(). A pipe's writer is waited for ten seconds.

    Raises OSError: ETIMEDOUT for a pipe to which nobody writes.
    """
    # Without O_NONBLOCK, open(2) itself waits for a writer (fifo(7)).
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            _await_writer(fd, path)
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _await_writer(fd: int, path: str) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(_PATIENCE_S * 1000):
        reason = f"it is a pipe, and nobody has written to it for {_PATIENCE_S:.0f} s"
        raise TimeoutError(errno.ETIMEDOUT, reason, path)
