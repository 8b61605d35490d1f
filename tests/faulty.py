"""A card that fails: a FUSE file system with one file, whose reads and writes go wrong as told.

``python -m tests.faulty DIRECTORY BACKING FAULT -- COMMAND`` mounts it at DIRECTORY, runs COMMAND,
unmounts and ends as COMMAND did. Its file ``card`` has BACKING's content. FAULT is one of

- ``eio:OFFSET`` writing to byte OFFSET gives EIO, always
- ``garble:OFFSET:TIMES`` what is written over byte OFFSET is stored wrong, the first TIMES times
- ``rot:OFFSET:TIMES`` byte OFFSET is read wrong, the first TIMES times
- ``gone:OFFSET`` from the first write to byte OFFSET on, nothing works: ENODEV
- ``shrunk:OFFSET`` from then on the card ends where that write began
- ``none``

How often it struck is printed on standard error. To be run in a mount namespace of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
from typing import Any

import mfusepy

from tests.patience import wait_for

NAME = "/card"


class FaultyCard(mfusepy.Operations):  # type: ignore[misc]  # it is untyped
    """One file, with a fault."""

    use_ns = True

    def __init__(self, backing: str, fault: str) -> None:
        self._fd = os.open(backing, os.O_RDWR)
        self._size = os.fstat(self._fd).st_size
        self._kind, *numbers = fault.split(":")
        self._offset, self._left = [*map(int, numbers), -1, -1][:2]
        self._is_broken = False

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Describe the directory or the file."""
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path != NAME:
            raise mfusepy.FuseOSError(errno.ENOENT)
        self._require_there()
        return {
            "st_mode": stat.S_IFREG | 0o600,
            "st_nlink": 1,
            "st_size": self._size,
            "st_blocks": self._size // 512,
        }

    def readdir(self, path: str, fh: int) -> list[str]:
        """List the one file."""
        return [".", "..", NAME[1:]]

    def open(self, path: str, flags: int) -> int:
        """Open it, as often as one likes."""
        self._require_there()
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Read, perhaps wrongly."""
        self._require_there()
        data = os.pread(self._fd, min(size, max(self._size - offset, 0)), offset)
        if self._kind == "rot" and self._strikes(offset, len(data)):
            return self._spoilt(data, offset)
        return data

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Write, perhaps wrongly or not at all."""
        self._require_there()
        if self._kind == "eio" and self._strikes(offset, len(data)):
            raise mfusepy.FuseOSError(errno.EIO)
        if self._kind == "garble" and self._strikes(offset, len(data)):
            data = self._spoilt(data, offset)
        if self._kind == "gone" and self._strikes(offset, len(data)):
            self._is_broken = True
        if self._kind == "shrunk" and self._strikes(offset, len(data)):
            self._size = offset
        self._require_there()
        if offset + len(data) > self._size:
            raise mfusepy.FuseOSError(errno.ENOSPC)
        return os.pwrite(self._fd, data, offset)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        """Flush."""
        self._require_there()
        return 0

    def _require_there(self) -> None:
        if self._is_broken:
            raise mfusepy.FuseOSError(errno.ENODEV)

    def _strikes(self, offset: int, size: int) -> bool:
        if not offset <= self._offset < offset + size or self._left == 0:
            return False
        self._left -= 1
        print(f"fault: {self._kind} at {offset}", file=sys.stderr, flush=True)
        return True

    def _spoilt(self, data: bytes, offset: int) -> bytes:
        spoilt = bytearray(data)
        spoilt[self._offset - offset] ^= 0xFF
        return bytes(spoilt)


def main(arguments: list[str]) -> int:
    """Serve, run the command, and end as it did."""
    place, backing, fault, dashes, *command = arguments
    assert dashes == "--"
    server = os.fork()
    if server == 0:
        mfusepy.FUSE(FaultyCard(backing, fault), place, foreground=True, nothreads=True)
        os._exit(0)
    wait_for(lambda: os.path.ismount(place))
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "-l", place], check=True)
        os.waitpid(server, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
