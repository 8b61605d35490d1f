"""Read what programs of a tree left in a directory that was shown to them.

A tree may be hostile: what lies there may be a link to a file of the host's, or a pipe that
nobody writes to.
"""

from __future__ import annotations

import os
import stat

from xbuild.tree.resolve import READ_FLAGS


def read_output(path: str, limit: int) -> bytes | None:
    """Return what is in a regular file, up to ``limit`` bytes; None where it is anything else."""
    try:
        fd = os.open(path, READ_FLAGS)
    except OSError:  # a symbolic link is ELOOP, a socket ENXIO
        return None
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return file.read(limit)
