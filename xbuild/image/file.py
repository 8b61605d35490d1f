"""An image as an open file: a regular file or a block device, by descriptor and not by name."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from xbuild.errors import DamagedImage, ImageError
from xbuild.image.closing import OwnsDescriptor
from xbuild.record import HostPath
from xbuild.tree.path_walk import kind_of
from xbuild.tree.resolve import target_error

if TYPE_CHECKING:
    from xbuild.sandbox.cell import Cell

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class ImageFile(OwnsDescriptor):
    """An image opened for reading. Owns ``fd`` until close(); ``size`` is in bytes.

    ``label`` names the image in messages, which is its path unless it was unpacked. With
    ``by_kernel`` its file systems are read by mounting them where the kernel knows them: much
    faster than by programs, and root may.
    """

    by_kernel = False

    def __init__(self, path: HostPath, *, label: str = "") -> None:
        """Open ``path``, following symlinks. Raises TargetError, ImageError, DamagedImage."""
        self.path = path
        self.label = label or path
        self._cell: Cell | None = None
        self._has_none = False
        try:
            self.fd = os.open(path, _FLAGS)
        except (OSError, ValueError) as error:
            raise target_error(self.label, error) from error
        try:
            self.size = self._measure()
        except BaseException:
            self.close()
            raise

    @property
    def argument(self) -> str:
        """Return the name by which a child that inherits ``fd`` opens the image."""
        return f"/proc/self/fd/{self.fd}"

    def cell(self) -> Cell | None:
        """Return where programs take the image apart; None, after a warning, where none can be."""
        if self._cell is None and not self._has_none:
            from xbuild.image.cells import make_cell  # not every image is taken apart by programs

            self._cell = make_cell(self.label, self.fd)
            self._has_none = self._cell is None
        return self._cell

    def close_cell(self) -> None:
        """End whatever runs on the image; a next program has another cell."""
        if self._cell is not None:
            self._cell.close()
            self._cell = None

    def close(self) -> None:
        """Give back what is held; a second call does nothing."""
        self.close_cell()
        super().close()

    def pread(self, size: int, offset: int) -> bytes:
        """Return at most ``size`` bytes at ``offset``; fewer at the end. Raises ImageError."""
        try:
            return os.pread(self.fd, size, offset)
        except OSError as error:
            raise ImageError(
                f"Cannot read {self.label}: {error.strerror}",
                "dmesg says more where a disk or a card fails",
            ) from error

    def _measure(self) -> int:
        mode = os.fstat(self.fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise ImageError(
                f"{self.label} is {kind_of(mode)}, not an image",
                "name a regular file or a block device",
            )
        try:
            size = os.lseek(self.fd, 0, os.SEEK_END)
        except OSError as error:
            raise ImageError(
                f"Cannot read {self.label}: {error.strerror}",
                "dmesg says more where a disk or a card fails",
            ) from error
        if size == 0:
            raise DamagedImage(f"{self.label} is empty", "fetch or make it again")
        return size


def open_no_link(path: str, flags: int) -> int:
    """Open a file beside an image, for open(): who owns the directory may lay links in it.

    Raises OSError ELOOP for one.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def copy_status(source: int, target: int) -> None:
    """Give an open file the mode, times and attributes of another. Raises OSError."""
    shutil.copystat(f"/proc/self/fd/{source}", f"/proc/self/fd/{target}")
