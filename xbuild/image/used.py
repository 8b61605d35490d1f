"""Which bytes of an image are in use: all others need neither be kept, nor compressed, nor written.

A block that a file system calls free is free whatever it holds, and one in use is in use though it
is full of zeros: on a card with an earlier life, it must be written. So this asks the file systems
rather than looking for zeros. Where nobody can be asked, the holes of the image file are unused,
as bmaptool has it, and all else is used.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from itertools import groupby

from xbuild.errors import DamagedImage
from xbuild.image.bmap import BLOCK
from xbuild.image.ext_resize import describe_ext, verify_ext
from xbuild.image.extents import Extent, align_outwards, data_extents, merge, subtract
from xbuild.image.file import ImageFile
from xbuild.image.filesystem import EXT, Filesystem, filesystem_in
from xbuild.image.table import Table
from xbuild.record import Record

_GAP_KEPT = 16 << 20  # bytes before the first partition that boot loaders may want as they are
_SWAP_HEADER = 64 << 10  # mkswap(8) writes one page; no architecture's is larger
_FREE_BLOCKS = re.compile(r"^  Free blocks: (.+)$", re.MULTILINE)
_FIELD = re.compile(r"^(Block size|Block count|Filesystem features):\s+(.*)$", re.MULTILINE)
_FAT12_CLUSTERS, _FAT16_CLUSTERS = 4085, 65525  # fatgen103: below these the type is that one


class Used(Record):
    """What is in use, in blocks of the block map; ``notes`` say what could not be trimmed."""

    extents: tuple[Extent, ...]
    notes: tuple[str, ...] = ()


def used_extents(image: ImageFile, table: Table) -> Used:
    """Find what is in use. Raises DamagedImage, ImageToolMissing."""
    spans = [
        (f"partition {p.number}", Extent(p.offset, p.size))
        for p in table.partitions
        if not p.is_container
    ] or [("the image", Extent(0, image.size))]
    used = list(_between(image, [span for _, span in spans]))
    notes = []
    for name, span in spans:
        filesystem = filesystem_in(image, span.offset, span.length)
        extents, problem = _used_in(image, span, filesystem)
        used += extents
        if problem:
            notes.append(f"{name} was not trimmed: {problem}")
    return Used(align_outwards(merge(used), BLOCK, image.size), tuple(notes))


def _between(image: ImageFile, spans: list[Extent]) -> Iterator[Extent]:
    """Yield what is in use outside of all partitions: tables and boot loaders."""
    first = min(span.offset for span in spans)
    if 0 < first <= _GAP_KEPT:
        yield Extent(0, first)
    for gap in subtract([Extent(0, image.size)], spans):
        yield from data_extents(image.fd, gap.offset, gap.end)


def _used_in(
    image: ImageFile, span: Extent, filesystem: Filesystem | None
) -> tuple[tuple[Extent, ...], str]:
    data = tuple(data_extents(image.fd, span.offset, span.end))
    kind = filesystem.type if filesystem else ""
    if kind == "swap":
        return (Extent(span.offset, min(_SWAP_HEADER, span.length)),), ""
    if kind == "vfat":
        return _used_in_fat(image, span, data)
    if kind in EXT:
        if filesystem is not None and filesystem.is_dirty:
            return data, "its file system was not unmounted cleanly"
        return _used_in_ext(image, span, data)
    return data, ""


def _used_in_ext(
    image: ImageFile, span: Extent, data: tuple[Extent, ...]
) -> tuple[tuple[Extent, ...], str]:
    """Ask dumpe2fs for free blocks, once e2fsck has found that it can be believed."""
    try:
        verify_ext(image.fd, span.offset, label=image.label)
    except DamagedImage as error:
        return data, f"{error.message}"
    text = describe_ext(image.fd, span.offset, label=image.label)
    fields = dict(_FIELD.findall(text))
    if "Block size" not in fields or "bigalloc" in fields["Filesystem features"].split():
        return data, "dumpe2fs does not tell its free blocks"
    block, count = int(fields["Block size"]), int(fields["Block count"])
    inside = Extent(span.offset, min(count * block, span.length))
    free = tuple(_free_in_ext(text, block, span.offset))
    behind = data_extents(image.fd, inside.end, span.end)
    return (*subtract([inside], free), *behind), ""


def _free_in_ext(text: str, block: int, offset: int) -> Iterator[Extent]:
    for line in _FREE_BLOCKS.findall(text):
        for run in line.split(", "):
            first, _, last = run.partition("-")
            start, end = int(first), int(last or first) + 1
            yield Extent(offset + start * block, (end - start) * block)


def _used_in_fat(
    image: ImageFile, span: Extent, data: tuple[Extent, ...]
) -> tuple[tuple[Extent, ...], str]:
    free = free_in_fat(image, span)
    if free is None:
        return data, "its FAT is of 12 bits, or nonsense"
    return subtract([span], free), ""


def free_in_fat(image: ImageFile, span: Extent) -> tuple[Extent, ...] | None:
    """Return the free clusters of a FAT16 or FAT32 (Microsoft, fatgen103), None for others.

    No program lists them: mtools and fsck.fat only count.
    """
    boot = image.pread(64, span.offset)
    if len(boot) < 64:
        return None

    def field(at: int, length: int) -> int:
        return int.from_bytes(boot[at : at + length], "little")

    sector, per_cluster, reserved, copies = field(11, 2), boot[13], field(14, 2), boot[16]
    sectors = field(19, 2) or field(32, 4)
    fat_sectors = field(22, 2) or field(36, 4)
    if sector not in (512, 1024, 2048, 4096) or not (per_cluster and copies and fat_sectors):
        return None
    root = -(-field(17, 2) * 32 // sector)
    start = reserved + copies * fat_sectors + root
    clusters = (sectors - start) // per_cluster
    width = 2 if clusters < _FAT16_CLUSTERS else 4
    if clusters < _FAT12_CLUSTERS or (clusters + 2) * width > fat_sectors * sector:
        return None
    if sectors * sector > span.length:
        return None
    table = image.pread((clusters + 2) * width, span.offset + reserved * sector)
    base = span.offset + start * sector
    return tuple(_free_clusters(table, width, base, per_cluster * sector))


def _free_clusters(table: bytes, width: int, base: int, size: int) -> Iterator[Extent]:
    entries = array("H" if width == 2 else "I", table)
    if entries.itemsize != width:
        return
    mask = 0xFFFF if width == 2 else 0x0FFFFFFF
    position = 0
    for is_free, run in groupby(entries[2:], lambda entry: not entry & mask):
        length = sum(1 for _ in run)
        if is_free:
            yield Extent(base + position * size, length * size)
        position += length
