"""File systems in a range of an image: kind, names, size, free space and whether one is dirty.

blkid(8) says what it is. Sizes and states come from each file system's own program where that
takes an offset, else from the few fields of its superblock that its on-disk format fixes. All of
it is the image's own word: see Filesystem.size.
"""

from __future__ import annotations

import re
import struct

from xbuild.image.file import ImageFile
from xbuild.image.program import find_program, run_program
from xbuild.image.table import probe_signature
from xbuild.record import HostPath, Record

EXT = ("ext2", "ext3", "ext4")
READ_ONLY = ("squashfs", "erofs", "iso9660", "cramfs")
MTOOLS = {"MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"}

_SECTOR = 512
_FREE_LINE = re.compile(rb"^\s*([0-9 ]+) bytes free\s*$", re.MULTILINE)


class Filesystem(Record):
    """A file system as it describes itself: ``type`` is blkid's and the kernel's name for it.

    ``size`` and ``free`` are in bytes, None where unknown; a ``size`` beyond the range that it was
    found in is a lie or the trace of a cut. ``is_dirty`` tells that it was not unmounted cleanly
    or has errors, None where that cannot be told without a mount; ``has_journal_to_replay`` that
    its journal has what is nowhere else yet, which is known of ext file systems. Also reported this
    way, by blkid's names: "swap", "crypto_LUKS", "LVM2_member" and RAID members.
    """

    type: str
    label: str = ""
    uuid: str = ""
    size: int | None = None
    free: int | None = None
    is_dirty: bool | None = None
    has_journal_to_replay: bool = False


class _Measures(Record):
    size: int | None = None
    free: int | None = None
    is_dirty: bool | None = None
    has_journal_to_replay: bool = False


def probe_filesystem(path: HostPath, offset: int, size: int) -> Filesystem | None:
    """Return what is in ``size`` bytes of an image from ``offset``, None for nothing known.

    Raises DamagedImage, ImageToolMissing, TargetError.
    """
    with ImageFile(path) as image:
        return filesystem_in(image, offset, size)


def filesystem_in(image: ImageFile, offset: int, size: int) -> Filesystem | None:
    """Return what is in a range of an open image: see probe_filesystem()."""
    found = probe_signature(image, offset, size)
    kind = found.get("TYPE")
    if kind is None:
        return None
    measures = _measure(image, kind, offset, found)
    return Filesystem(
        kind,
        found.get("LABEL", ""),
        found.get("UUID", ""),
        measures.size,
        measures.free,
        measures.is_dirty,
        measures.has_journal_to_replay,
    )


def _measure(image: ImageFile, kind: str, offset: int, found: dict[str, str]) -> _Measures:
    match kind:
        case "ext2" | "ext3" | "ext4":
            return _measure_ext(image, offset)
        case "vfat":
            return _measure_fat(image, offset, found.get("VERSION", ""))
        case "xfs":
            return _measure_xfs(image, offset)
        case "btrfs":
            return _measure_btrfs(image, offset)
        case "squashfs":
            return _Measures(_field(image, offset + 40, "<Q"), 0, False)
        case "erofs":
            return _measure_erofs(image, offset)
        case _:
            return _Measures()


def _field(image: ImageFile, offset: int, form: str) -> int | None:
    """Return one number of a superblock, None where the image ends before."""
    layout = struct.Struct(form)
    data = image.pread(layout.size, offset)
    return int(layout.unpack(data)[0]) if len(data) == layout.size else None


def ext_argument(image: ImageFile, offset: int) -> str:
    """Return the name by which e2fsprogs open the ext file system at ``offset`` bytes."""
    return f"{image.argument}?offset={offset}"


def _measure_ext(image: ImageFile, offset: int) -> _Measures:
    if find_program("dumpe2fs") is None:
        return _Measures()
    output = run_program(
        "dumpe2fs",
        ["-h", ext_argument(image, offset)],
        image=image,
        purpose=f"look into {image.label}",
    )
    text = output.stdout.decode("utf-8", "replace")
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {key: value.strip() for key, value in fields.items()}
    block = _number(facts.get("Block size"))
    count, free = _number(facts.get("Block count")), _number(facts.get("Free blocks"))
    if block is None or count is None or free is None:
        return _Measures()
    is_clean = facts.get("Filesystem state") == "clean" and "checksum" not in output.stderr
    has_journal = "needs_recovery" in facts.get("Filesystem features", "").split()
    is_dirty = not is_clean or has_journal
    return _Measures(count * block, min(free, count) * block, is_dirty, has_journal)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _measure_fat(image: ImageFile, offset: int, version: str) -> _Measures:
    """Read a FAT's size and dirty mark (linux/msdos_fs.h: struct fat_boot_sector), ask mdir."""
    sector = _field(image, offset + 11, "<H") or _SECTOR
    sectors = _field(image, offset + 19, "<H") or _field(image, offset + 32, "<I") or 0
    state = _field(image, offset + (65 if version == "FAT32" else 37), "<B") or 0
    return _Measures(sector * sectors, _free_in_fat(image, offset), bool(state & 1))


def fat_tables_length(image: ImageFile, offset: int) -> int:
    """Return how many bytes of a FAT hold its tables and the beginning of its root directory."""
    sector = _field(image, offset + 11, "<H") or _SECTOR
    cluster = (_field(image, offset + 13, "<B") or 1) * sector
    reserved = _field(image, offset + 14, "<H") or 0
    count = _field(image, offset + 16, "<B") or 0
    entries = _field(image, offset + 17, "<H") or 0  # of the root directory, before FAT32
    length = _field(image, offset + 22, "<H") or _field(image, offset + 36, "<I") or 0
    root = _field(image, offset + 44, "<I") or 2 if entries == 0 else 2
    return (reserved + count * length) * sector + 32 * entries + (root - 1) * cluster


def _free_in_fat(image: ImageFile, offset: int) -> int | None:
    if find_program("mdir") is None:
        return None
    output = run_program(
        "mdir",
        ["-i", f"{image.argument}@@{offset}", "::/"],
        image=image,
        purpose=f"look into {image.label}",
        environment=MTOOLS,
    )
    match = _FREE_LINE.search(output.stdout)
    return int(match[1].replace(b" ", b"")) if match else None


def _measure_xfs(image: ImageFile, offset: int) -> _Measures:
    """Read fs/xfs/libxfs/xfs_format.h: struct xfs_dsb. Its log tells dirt."""
    from xbuild.image.xfs_log import has_dirty_log  # for an XFS alone

    block = _field(image, offset + 4, ">I") or 0
    count = _field(image, offset + 8, ">Q") or 0
    free = _field(image, offset + 144, ">Q") or 0
    return _Measures(count * block, min(free, count) * block, has_dirty_log(image, offset))


def _measure_btrfs(image: ImageFile, offset: int) -> _Measures:
    """Read fs/btrfs: struct btrfs_super_block. A log tree is what a crash leaves to replay."""
    at = offset + (64 << 10)
    log_root = _field(image, at + 0x60, "<Q") or 0
    total, used = _field(image, at + 0x70, "<Q") or 0, _field(image, at + 0x78, "<Q") or 0
    here = _field(image, at + 0xD1, "<Q")  # dev_item.total_bytes: this device's share
    return _Measures(here, max(total - used, 0), log_root != 0)


def _measure_erofs(image: ImageFile, offset: int) -> _Measures:
    """Read fs/erofs/erofs_fs.h: struct erofs_super_block."""
    bits = _field(image, offset + 1024 + 12, "<B") or 0
    blocks = _field(image, offset + 1024 + 36, "<I") or 0
    return _Measures(blocks << bits if bits < 32 else None, 0, False)


def find_backup(image: ImageFile, offset: int) -> tuple[int, int] | None:
    """Return block and block size of an ext backup superblock, where the first is damaged."""
    for block, size in ((32768, 4096), (8193, 1024), (16384, 2048)):
        place = offset + block * size + 0x38  # s_magic
        if image.pread(2, place) == b"\x53\xef":
            return block, size
    return None
