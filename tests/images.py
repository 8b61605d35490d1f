"""Disk images built for tests, without mounting anything and without root.

Partitions are written by sfdisk at fixed places, file systems by mkfs.ext4 -d, mtools, mksquashfs,
mkfs.erofs, mkfs.btrfs --rootdir and mkfs.xfs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.capability import require
from tests.crafted import Layout, make_tree
from xbuild.record import HostPath

MIB = 1 << 20
ALIGNMENT = MIB
PLACES = ("/usr/sbin", "/sbin")

TableKind = Literal["gpt", "mbr", "none"]
Content = HostPath | str | Layout | None
"""A directory to copy, a layout of tests.crafted, or nothing."""

# Fixed so that an image is the same in each run: identifiers, and times by SOURCE_DATE_EPOCH.
DISK_IDS = {"mbr": "0x2d5ab1e5", "gpt": "0b2d5ab1-e500-4000-8000-000000000001"}
_MBR_TYPES = {"vfat": "c", "swap": "82", "extended": "5"}
_GPT_TYPES = {
    "vfat": "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
    "swap": "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
}
_GPT_LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"


@dataclass(frozen=True)
class Part:
    """One partition to be: ``size`` in bytes, a multiple of 1 MiB; ``type`` overrides sfdisk's."""

    label: str
    fs: str
    size: int
    content: Content = None
    type: str = ""
    options: tuple[str, ...] = ()


Spec = Part | tuple[str, str, int, Content]
"""A part, or its first four fields."""


def make_image(
    path: str | os.PathLike[str], *, table: TableKind = "mbr", layout: Sequence[Spec]
) -> HostPath:
    """Write a sparse image and return its path.

    Each part is (label, file system, bytes, content). File systems: those of mkfs, "swap",
    "extended" (MBR: the parts behind it are logical), "luks" and "lvm" (signatures alone), ""
    for none. GPT partitions are named by their labels. With table "none" there is one part, from
    byte 0.
    """
    parts = [part if isinstance(part, Part) else Part(*part) for part in layout]
    image = HostPath(os.fspath(path))
    offsets = _offsets(parts, table)
    end = max(offset + part.size for offset, part in zip(offsets, parts, strict=True))
    with open(image, "wb") as file:
        file.truncate(end + (ALIGNMENT if table == "gpt" else 0))
    if table != "none":
        write_table(image, table, list(zip(offsets, parts, strict=True)))
    for offset, part in zip(offsets, parts, strict=True):
        write_filesystem(image, offset, part)
    return image


def write_table(image: HostPath, table: TableKind, placed: Sequence[tuple[int, Part]]) -> None:
    """Write a partition table with sfdisk."""
    lines = [f"label: {'dos' if table == 'mbr' else 'gpt'}", f"label-id: {DISK_IDS[table]}"]
    number = 1
    for offset, part in placed:
        fields = [f"start={offset // 512}", f"size={part.size // 512}"]
        if table == "gpt":
            fields.append(f"type={part.type or _GPT_TYPES.get(part.fs, _GPT_LINUX)}")
            fields.append(f'name="{part.label}"')
            fields.append(f"uuid=0b2d5ab1-e500-4000-8000-0000000001{number:02x}")
        else:
            fields.append(f"type={part.type or _MBR_TYPES.get(part.fs, '83')}")
        lines.append(f"{number} : {', '.join(fields)}")
        number = 5 if part.fs == "extended" else number + 1
    _run("sfdisk", ["-q", "--no-reread", image], stdin="\n".join(lines) + "\n")


def write_filesystem(image: HostPath, offset: int, part: Part) -> None:
    """Make a part's file system at ``offset`` bytes of an existing image."""
    if part.fs in ("", "extended"):
        return
    with tempfile.TemporaryDirectory(prefix="xbuild-image-", dir="/var/tmp") as scratch:
        tree = _tree(part.content, f"{scratch}/tree")
        if part.fs in ("ext2", "ext3", "ext4"):
            _make_ext(image, offset, part, tree)
            return
        single = f"{scratch}/filesystem"
        with open(single, "wb") as file:
            file.truncate(part.size)
        _MAKERS[part.fs](single, part, tree)
        assert os.path.getsize(single) <= part.size, f"{part.label} does not fit"
        copy_sparse(single, image, offset)


def copy_sparse(source: str, image: str, offset: int) -> None:
    """Copy what is data in ``source`` to ``offset`` bytes of ``image``."""
    with open(source, "rb") as file, open(image, "r+b") as target:
        while chunk := file.read(MIB):
            if chunk.strip(b"\0"):
                target.seek(offset)
                target.write(chunk)
            offset += len(chunk)


def _offsets(parts: Sequence[Part], table: TableKind) -> list[int]:
    if table == "none":
        assert len(parts) == 1
        return [0]
    offsets, position, is_logical = [], ALIGNMENT, False
    for part in parts:
        assert part.size % ALIGNMENT == 0, part
        position += ALIGNMENT if is_logical else 0  # the chained table before each logical one
        offsets.append(position)
        if part.fs == "extended":
            is_logical = True
        else:
            position += part.size
    return offsets


def _tree(content: Content, place: str) -> str:
    match content:
        case None:
            os.mkdir(place)
            return place
        case Mapping():
            os.mkdir(place)
            return make_tree(place, content)
        case _:
            return content


def _make_ext(image: HostPath, offset: int, part: Part, tree: str) -> None:
    options = ["-q", "-F", "-L", part.label, "-d", tree, "-E", f"offset={offset}", *part.options]
    _run(f"mkfs.{part.fs}", [*options, "-b", "4096", image, str(part.size // 4096)])


def _make_fat(path: str, part: Part, tree: str) -> None:
    _run("mkfs.vfat", ["-n", part.label.upper() or "NO NAME", *part.options, path])
    entries = sorted(os.path.join(tree, name) for name in os.listdir(tree))
    if entries:
        _run("mcopy", ["-s", "-m", "-i", path, *entries, "::/"], env={"MTOOLSRC": "/dev/null"})


def _make_squashfs(path: str, part: Part, tree: str) -> None:
    os.unlink(path)
    _run("mksquashfs", [tree, path, "-quiet", "-no-progress", *part.options])


def _make_erofs(path: str, part: Part, tree: str) -> None:
    os.unlink(path)
    _run("mkfs.erofs", [*part.options, path, tree])


def _make_btrfs(path: str, part: Part, tree: str) -> None:
    _run("mkfs.btrfs", ["-q", "-L", part.label, "--rootdir", tree, *part.options, path])


def _make_xfs(path: str, part: Part, tree: str) -> None:
    assert not os.listdir(tree), "mkfs.xfs copies no tree"
    _run("mkfs.xfs", ["-q", "-L", part.label[:12], *part.options, path])


def _make_swap(path: str, part: Part, _tree: str) -> None:
    os.chmod(path, 0o600)
    _run("mkswap", ["-L", part.label, path])


def _make_luks(path: str, _part: Part, _tree: str) -> None:
    with open(path, "r+b") as file:  # LUKS1 on-disk format: magic, version, cipher names, UUID
        header = b"LUKS\xba\xbe\0\x01" + b"aes".ljust(32, b"\0") + b"xts".ljust(32, b"\0")
        file.write(header + b"sha256".ljust(32, b"\0"))
        file.seek(168)
        file.write(b"0b2d5ab1-e500-4000-8000-000000000002")


def _make_lvm(path: str, part: Part, _tree: str) -> None:
    with open(path, "r+b") as file:  # lvm2: label_header with its CRC, then pv_header with a UUID
        body = b"\x20\0\0\0LVM2 001" + b"0123456789abcdefghijklmnopqrstuv"
        body += part.size.to_bytes(8, "little")
        body = body.ljust(512 - 20, b"\0")
        file.seek(512)
        file.write(b"LABELONE" + (1).to_bytes(8, "little"))
        file.write(_lvm_checksum(body).to_bytes(4, "little") + body)


def _lvm_checksum(data: bytes) -> int:
    """Return the CRC of lvm2's lib/misc/crc.c: CRC-32 from its own seed, not inverted."""
    value = 0xF597A6CF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
    return value


_MAKERS: dict[str, Callable[[str, Part, str], None]] = {
    "vfat": _make_fat,
    "squashfs": _make_squashfs,
    "erofs": _make_erofs,
    "btrfs": _make_btrfs,
    "xfs": _make_xfs,
    "swap": _make_swap,
    "luks": _make_luks,
    "lvm": _make_lvm,
}


def find_tool(program: str) -> str | None:
    """Return the path of a system program, also where PATH has no sbin."""
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), *PLACES)))


def _run(
    program: str,
    arguments: Sequence[str],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
) -> None:
    path = find_tool(program)
    require(program, path is not None, f"test images are made with {program}")
    assert path is not None
    settings = {**os.environ, "LC_ALL": "C", **(env or {})}
    done = subprocess.run(
        [path, *arguments], input=stdin, capture_output=True, text=True, env=settings, check=False
    )
    assert done.returncode == 0, f"{program} {arguments}: {done.stderr}"
