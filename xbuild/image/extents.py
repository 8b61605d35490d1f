"""Which parts of a file hold data, and copying just those: holes, extents, ranges of bytes.

A file system without holes (SEEK_HOLE in lseek(2)) reports a whole file as data: all of it is
then read, which is slower and no less right.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

from xbuild.record import Record

_COPY_STEP = 64 << 20  # bytes in one copy_file_range(2), between which a signal gets its turn
_READ_STEP = 1 << 20
_NOT_COPIED_THERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


class Extent(Record):
    """Bytes from ``offset``, ``length`` of them, which is above 0."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """Return the offset of the first byte behind it."""
        return self.offset + self.length


def data_extents(fd: int, start: int, end: int) -> Iterator[Extent]:
    """Yield what is no hole between ``start`` and ``end`` of an open file, in order."""
    position = start
    while position < end:
        try:
            data = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            yield Extent(position, end - position)  # no holes known here: all is data
            return
        if data >= end:
            return
        hole = min(os.lseek(fd, data, os.SEEK_HOLE), end)
        yield Extent(data, hole - data)
        position = hole


def total_length(extents: Iterable[Extent]) -> int:
    """Return how many bytes the extents have together."""
    return sum(extent.length for extent in extents)


def merge(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """Return the union of extents: in order, disjoint, no two adjacent."""
    merged: list[Extent] = []
    for extent in sorted(extents, key=lambda e: e.offset):
        if merged and extent.offset <= merged[-1].end:
            last = merged.pop()
            merged.append(Extent(last.offset, max(last.end, extent.end) - last.offset))
        else:
            merged.append(extent)
    return tuple(merged)


def subtract(extents: Iterable[Extent], holes: Iterable[Extent]) -> tuple[Extent, ...]:
    """Return what of ``extents`` is in none of ``holes``; both are merged first."""
    kept: list[Extent] = []
    taken, next_hole = merge(holes), 0
    for extent in merge(extents):
        position = extent.offset
        while next_hole < len(taken) and taken[next_hole].end <= position:
            next_hole += 1
        at = next_hole
        while at < len(taken) and taken[at].offset < extent.end:
            if taken[at].offset > position:
                kept.append(Extent(position, taken[at].offset - position))
            position = max(position, taken[at].end)
            at += 1
        if position < extent.end:
            kept.append(Extent(position, extent.end - position))
    return tuple(kept)


def align_outwards(extents: Iterable[Extent], unit: int, limit: int) -> tuple[Extent, ...]:
    """Return the blocks of ``unit`` bytes that the extents touch, ended at ``limit``."""
    return merge(
        Extent(start, min(-(-extent.end // unit) * unit, limit) - start)
        for extent in extents
        for start in (extent.offset // unit * unit,)
    )


def copy_extents(source: int, target: int, extents: Iterable[Extent], *, shift: int = 0) -> None:
    """Copy extents between open files, each to its own offset plus ``shift``.

    By copy_file_range(2): where the file system can, blocks are shared and not copied. Raises
    OSError, and EOFError when the source ends before an extent does.
    """
    for extent in extents:
        position = extent.offset
        while position < extent.end:
            step = min(_COPY_STEP, extent.end - position)
            copied = _copy(source, target, step, position, position + shift)
            if copied == 0:
                raise EOFError
            position += copied


def _copy(source: int, target: int, length: int, offset: int, target_offset: int) -> int:
    try:
        copied = os.copy_file_range(source, target, length, offset, target_offset)
    except OSError as error:
        if error.errno not in _NOT_COPIED_THERE:
            raise
        copied = 0
    return copied or _copy_by_hand(source, target, min(length, _READ_STEP), offset, target_offset)


def _copy_by_hand(source: int, target: int, length: int, offset: int, target_offset: int) -> int:
    data = memoryview(os.pread(source, length, offset))
    written = 0
    while written < len(data):
        written += os.pwrite(target, data[written:], target_offset + written)
    return len(data)
