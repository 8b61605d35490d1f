"""What holds something until it is closed, and is closed by ``with``."""

from __future__ import annotations

import os
from typing import Self


class Closing:
    """Closes itself at the end of a ``with`` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is held; a second call does nothing."""
        raise NotImplementedError


class OwnsDescriptor(Closing):
    """Owns the descriptor ``fd``, which is -1 once it is closed."""

    fd: int

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
