"""Bytes on their way to a descriptor whose reader may be slow, gone, or share it with others.

Off the start path: loaded where the output of a command passes through the launcher.
"""

from __future__ import annotations

import errno
import os
import select
import stat

_AT_ONCE = select.PIPE_BUF  # so much does not block after POLLOUT: pipe(7)
_AT_ONCE_TO_FILE = 1 << 20
_LIMIT = 1 << 18  # bytes waiting, from which on it counts as full


class Outlet:
    """What waits to be written to one descriptor, whose blocking mode is left as it is.

    It is not made non-blocking, since that would be so for all who share it (open(2)): it is
    written to when poll(2) says so, and then little at a time.
    """

    def __init__(self, fd: int, limit: int = _LIMIT) -> None:
        self.fd = fd
        self.lost: OSError | None = None  # why nothing more can be written
        self._limit = limit
        self._waiting = bytearray()
        is_file = _is_file(fd)
        self._at_once = _AT_ONCE_TO_FILE if is_file else _AT_ONCE

    @property
    def waits(self) -> bool:
        """Whether there is something to be written."""
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether more should not be put for now."""
        return len(self._waiting) >= self._limit

    def put(self, content: bytes) -> None:
        """Take more, however much waits; nothing once the descriptor is lost."""
        if self.lost is None:
            self._waiting += content

    def write_some(self) -> None:
        """Write a part, when poll(2) says that it may be written to or is lost."""
        try:
            written = os.write(self.fd, self._waiting[: self._at_once])
        except BlockingIOError:  # somebody made it non-blocking, or was quicker
            return
        except OSError as error:
            self.lose(error)
            return
        del self._waiting[:written]

    def lose(self, error: OSError) -> None:
        """Give up on it, and on what waits."""
        self.lost = error
        self._waiting.clear()

    def is_closed(self) -> bool:
        """Tell whether it is lost because nobody reads it any more."""
        return self.lost is not None and self.lost.errno in (errno.EPIPE, errno.ECONNRESET)


def _is_file(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False
