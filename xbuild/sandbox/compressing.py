"""The commands that compress what goes through them: the same bytes for the same input, always.

Whatever the number of processors. Another version of a program may compress differently.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Compression = Literal["none", "gzip", "xz", "zstd", "bzip2"]

_THREADS_LEAST = 2  # one thread makes another stream than several, which all make the same


def compress_command(compression: Compression) -> tuple[str, ...]:
    """Return the program and its arguments; it reads standard input and writes standard output."""
    threads = f"-T{max(_THREADS_LEAST, os.cpu_count() or 0)}"
    match compression:
        case "none":
            return ("cat",)
        case "gzip":
            return ("gzip", "-n", "-c")
        case "bzip2":
            return ("bzip2", "-c")
        case "xz":
            return ("xz", "-6", threads, "-c", "-q")
        case "zstd":
            return ("zstd", "-10", threads, "-c", "-q")
