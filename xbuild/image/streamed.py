"""What looking into a compressed image needs of it, kept while its content streams by once.

The beginning of every partition says what is in it. A partition that may have a root tree is kept,
for a file system's directories lie anywhere in it; of a FAT its tables are, of any other only the
two ends. Where there is no room for that, the beginnings alone are kept and the rest passes by:
the table and the file systems are then known, and the tree is not.
"""

from __future__ import annotations

import os

from xbuild.errors import DamagedImage, ImageError
from xbuild.image import compressed
from xbuild.image.extents import Extent
from xbuild.image.file import ImageFile
from xbuild.image.filesystem import fat_tables_length, filesystem_in
from xbuild.image.opening import NATIVE
from xbuild.image.table import Partition, table_of
from xbuild.record import HostPath, Record
from xbuild.sandbox import room

HEAD = 4 << 20  # bytes after which the partition table is read
_ENDS = 1 << 20  # bytes kept at either end of a partition: superblocks, some RAIDs' at the end


class Streamed(Record):
    """Part of an image's content in a file without a name, which the caller closes.

    ``size`` is that of the whole content; ``passed_by`` is what there was no room for.
    """

    fd: int
    size: int
    directory: HostPath
    passed_by: tuple[Extent, ...]

    def lacks(self, partition: Partition) -> bool:
        """Tell whether something of a partition is missing that its file system needs."""
        return any(e.offset < partition.end and partition.offset < e.end for e in self.passed_by)


def stream_image(path: HostPath, progress: compressed.Progress | None = None) -> Streamed:
    """Read a compressed image once, and keep what there is to look at in $TMPDIR or /var/tmp.

    Raises DamagedImage for a file that is cut off or garbled, ImageError where not even the
    beginnings can be kept.
    """
    directory = compressed.scratch_directory()
    fd = compressed.open_unnamed(path, directory)
    try:
        selection = _Selection(fd, path)
        size = compressed.unpack(path, fd, directory, progress, wanted=selection.wants)
        return Streamed(fd, size, directory, tuple(selection.passed_by))
    except BaseException:
        os.close(fd)
        raise


class _Selection:
    """Decides for each MiB whether to keep it, from what was kept before."""

    def __init__(self, fd: int, path: HostPath) -> None:
        self._fd = fd
        self._path = path
        self._ahead: list[Partition] | None = None  # not judged yet, in order; None: no table yet
        self._kept: list[Partition] = []
        self._left_out: list[Extent] = []
        self._is_full = False
        self.passed_by: list[Extent] = []

    def wants(self, position: int) -> bool:
        """Tell whether to keep what is at ``position``; all before it is decided."""
        if position < HEAD:
            return True
        self._judge(position)
        if not self._is_full and room.free_room(self._fd) < room.RESERVE:
            self._is_full = True
            for partition in self._kept:
                self._pass_by(partition, position)
        end = position + compressed.CHUNK
        return not any(e.offset <= position and end <= e.end for e in self._left_out)

    def _judge(self, position: int) -> None:
        if self._ahead is None:
            self._ahead = self._partitions()
        if not self._ahead or self._ahead[0].offset + _ENDS > position:
            return
        os.ftruncate(self._fd, compressed.SIZE_LIMIT)
        with ImageFile(HostPath(f"/proc/self/fd/{self._fd}"), label=self._path) as image:
            while self._ahead and self._ahead[0].offset + _ENDS <= position:
                self._judge_partition(image, self._ahead.pop(0), position)

    def _judge_partition(self, image: ImageFile, partition: Partition, position: int) -> None:
        found = filesystem_in(image, partition.offset, partition.size)
        kind = found.type if found is not None else ""
        if kind in NATIVE:
            self._kept.append(partition)
            if self._is_full:
                self._pass_by(partition, position)
            return
        beginning = fat_tables_length(image, partition.offset) if kind == "vfat" else 0
        if kind:  # of what is not known, a backup superblock may be
            start = partition.offset + beginning + _ENDS
            self._left_out.append(Extent(start, max(partition.end - _ENDS - start, 1)))

    def _pass_by(self, partition: Partition, position: int) -> None:
        start = max(position, partition.offset + _ENDS)
        if start < partition.end - _ENDS:
            extent = Extent(start, partition.end - _ENDS - start)
            self._left_out.append(extent)
            self.passed_by.append(extent)

    def _partitions(self) -> list[Partition]:
        """Return the partitions in order; one for all where there is no table to go by."""
        everything = Partition(0, 0, compressed.SIZE_LIMIT, "")
        os.ftruncate(self._fd, compressed.SIZE_LIMIT)
        try:
            with ImageFile(HostPath(f"/proc/self/fd/{self._fd}"), label=self._path) as image:
                found = table_of(image).partitions
        except (DamagedImage, ImageError):
            found = ()  # what is wrong with it is said at the end, when its backup was seen
        if not found or any(p.is_container for p in found):  # a chain through all of it
            self._kept.append(everything)
            return []
        return sorted(found, key=lambda p: p.offset)
