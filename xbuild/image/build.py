"""Build a disk image from a tree, without mounting anything and without root.

sfdisk writes the table, mkfs.ext4 -d the root, mkfs.vfat and mtools the boot partition, each into
the file at its offset. They run where there is the tree, the image and nothing else, as root of the
ids that the tree's containers have: so owners in the image are what those see.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
import uuid
from typing import TYPE_CHECKING, Literal

from xbuild.errors import ImageError
from xbuild.image.program import require_program
from xbuild.image.roles import ROOT_TYPES
from xbuild.record import GuestPath, HostPath, Record
from xbuild.sandbox.as_root import as_root_of
from xbuild.sandbox.confined import ConfinedProgram, Place
from xbuild.sandbox.room import MORE_ROOM, RESERVE, has_room

if TYPE_CHECKING:
    from xbuild.plan.ids import Identities
    from xbuild.plan.steps import IdMap

Layout = Literal["gpt", "mbr", "rpi"]
LAYOUTS: tuple[Layout, ...] = ("gpt", "mbr", "rpi")

MIB = 1 << 20
_SECTOR = 512
_FIRST = 4 * MIB  # where the first partition begins: cards have erase blocks of that size
_BOOT = 256 * MIB
_TAIL = MIB  # a GPT's backup
_SLACK = 256 * MIB  # free in an image whose size was not given
_LEAST = 16 * MIB  # of ext4, with what it needs for itself
_PER_FILE = 4096 + 256  # bytes: half a block and its neighbour on average, an inode
_INODE_RATIO = 16384  # bytes an inode: mke2fs.conf(5)
_TREE, _IMAGE, _FIRMWARE = GuestPath("/tree"), GuestPath("/image"), GuestPath("/firmware")
_FIRMWARE_IN_TREE = "boot/firmware"
_GENERIC_ROOT = "0fc63daf-8483-4772-8e79-3d69d8477de4"  # Linux file system, of any architecture
_NO_SPACE = ("Could not allocate block", "not enough", "Disk full", "too small")
_NO_MTAB = "ext2fs_check_if_mount"  # mkfs.ext4 sees no /etc/mtab, and warns
_HOST_IS_FULL = "No space left on device"


class Design(Record):
    """What an image is to be: ``size`` in bytes, None for what the tree needs and some more.

    ``arch`` is xbuild's name of the tree's architecture, "" if it is not known.
    """

    layout: Layout
    size: int | None
    arch: str


class _Part(Record):
    offset: int
    size: int
    identifier: str


def build_image(
    tree: HostPath, output: HostPath, design: Design, identities: Identities
) -> tuple[str, ...]:
    """Make the new file ``output``, and return notes. ``tree`` becomes what its root has.

    That is: /etc/fstab, if it says nothing, and with ``rpi`` what is in /boot/firmware goes to the
    boot partition. Raises ImageError where it does not fit, HostUnable where a program lacks.
    """
    boot = _boot_size(design.layout)
    content, count = _measure(tree, identities.outer)
    needed = _FIRST + boot + _needed(content, count) + _TAIL
    size = design.size or _rounded(needed + _SLACK)
    if size < needed:
        raise ImageError(
            f"The tree does not fit into {size // MIB} MiB: it takes {_rounded(needed) // MIB} MiB",
            f"--size {_rounded(needed + _SLACK) // MIB}M leaves some room",
        )
    _require_room(output, content)
    size = size // _SECTOR * _SECTOR
    firmware = _Part(_FIRST, boot, f"{secrets.randbits(32):08X}")
    at = _FIRST + boot
    root = _Part(at, (size - at - _TAIL) // MIB * MIB, str(uuid.uuid4()))
    notes = _prepare(tree, design.layout, firmware, root, identities.outer)
    with open(output, "xb") as file:
        file.truncate(size)
    work = _Work(tree, output, identities.outer)
    work.run(("sfdisk", "-q", "--no-reread", _IMAGE), _table(design, firmware, root))
    if boot:
        _make_firmware(work, firmware)
    work.run(_mkfs(tree, root, identities.outer))
    return notes


def require_size(layout: Layout, size: int | None) -> None:
    """Raise ImageError for an image that no tree fits into, whichever it is going to be."""
    least = _FIRST + _boot_size(layout) + _LEAST + _TAIL
    if size is not None and size < least:
        raise ImageError(
            f"No tree fits into an image of {size} bytes: the layout {layout} takes"
            f" {least // MIB} MiB without one",
            "sizes have units: --size 8G",
        )


def _boot_size(layout: Layout) -> int:
    return _BOOT if layout == "rpi" else 0


def _require_room(output: HostPath, content: int) -> None:
    """Raise ImageError unless there is room for an image of so much; its own holes take none."""
    if not has_room(os.path.dirname(output), content):
        least = (content + RESERVE) // MIB
        raise ImageError(
            f"Cannot build the image: less than {least} MiB are left at its target", MORE_ROOM
        )


def _rounded(size: int) -> int:
    step = 4 * MIB
    return -(-size // step) * step


def _needed(content: int, count: int) -> int:
    """Return how large a root file system has to be for a tree, in bytes."""
    return max(_LEAST, int((content + count * _PER_FILE) * 1.12) + _LEAST)


def _measure(tree: HostPath, outer: IdMap | None) -> tuple[int, int]:
    """Return the bytes of all files of a tree, holes left out, and their number."""
    content, count = as_root_of(outer, lambda: _measured(tree)).split()
    return int(content), int(count)


def _measured(tree: HostPath) -> str:
    """Return both as text."""
    seen: set[tuple[int, int]] = set()
    content = 0
    for directory, directories, files in os.walk(tree):
        for name in (*directories, *files):
            status = os.lstat(os.path.join(directory, name))
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                content += status.st_blocks * 512
    return f"{content} {len(seen)}"


def _prepare(
    tree: HostPath, layout: Layout, firmware: _Part, root: _Part, outer: IdMap | None
) -> tuple[str, ...]:
    lines = [f"UUID={root.identifier} / ext4 defaults,noatime 0 1"]
    if layout == "rpi":
        number = f"{firmware.identifier[:4]}-{firmware.identifier[4:]}"
        lines.append(f"UUID={number} /{_FIRMWARE_IN_TREE} vfat defaults 0 2")
    text = "".join(f"{line}\n" for line in lines)

    def arrange() -> str:
        if layout == "rpi":
            _take_firmware(tree)
        return _write_fstab(tree, text)

    note = as_root_of(outer, arrange)
    return (note,) if note else ()


def _write_fstab(tree: HostPath, text: str) -> str:
    """Write /etc/fstab, unless it says something; return a note if it is left as it is."""
    directory = f"{tree}/etc"
    if not _is_own_directory(directory):
        return "the tree has no /etc: it is without an fstab"
    path = f"{directory}/fstab"
    if os.path.lexists(path):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return "/etc/fstab is left as it is: it is no file"
        with open(path, "rb") as file:
            lines = [line.strip() for line in file]
        if any(line and not line.startswith(b"#") for line in lines):
            return "/etc/fstab is left as it is: look whether it fits this image"
        os.unlink(path)
    with open(path, "x", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)
    return ""


def _take_firmware(tree: HostPath) -> None:
    """Move what is in /boot/firmware beside the tree, where it is left empty."""
    for name in ("boot", _FIRMWARE_IN_TREE):
        if not os.path.lexists(f"{tree}/{name}"):
            os.mkdir(f"{tree}/{name}", 0o755)
        if not _is_own_directory(f"{tree}/{name}"):
            raise ImageError(f"/{name} of the tree is no directory", "--layout gpt or mbr")
    os.rename(f"{tree}/{_FIRMWARE_IN_TREE}", _beside(tree))
    os.mkdir(f"{tree}/{_FIRMWARE_IN_TREE}", 0o755)


def _is_own_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _beside(tree: HostPath) -> HostPath:
    return HostPath(f"{os.path.dirname(tree)}/firmware")


def _table(design: Design, firmware: _Part, root: _Part) -> str:
    """Return what sfdisk(8) is told."""
    if design.layout == "gpt":
        types = {arch: guid for guid, arch in ROOT_TYPES.items()}
        kind = types.get(design.arch, _GENERIC_ROOT)
        return f"label: gpt\n{_place(root)}, type={kind}, name=root\n"
    lines = ["label: dos"]
    if firmware.size:
        lines.append(f"{_place(firmware)}, type=c, bootable")
    lines.append(f"{_place(root)}, type=83")
    return "\n".join((*lines, ""))


def _place(part: _Part) -> str:
    return f"start={part.offset // _SECTOR}, size={part.size // _SECTOR}"


def _make_firmware(work: _Work, part: _Part) -> None:
    sector, blocks = part.offset // _SECTOR, part.size // 1024
    # Clusters of 1 KiB: with larger ones there are too few for mtools to take it for a FAT32.
    make = ("mkfs.vfat", "-F", "32", "-s", "2", "-n", "BOOTFS", "-i", part.identifier)
    work.run((*make, f"--offset={sector}", _IMAGE, str(blocks)))
    entries = sorted(os.listdir(_beside(work.tree)))
    if entries:
        inside = (f"{_FIRMWARE}/{name}" for name in entries)
        work.run(
            ("mcopy", "-s", "-p", "-m", "-Q", "-i", f"{_IMAGE}@@{part.offset}", *inside, "::/")
        )


def _mkfs(tree: HostPath, root: _Part, outer: IdMap | None) -> tuple[str, ...]:
    _, count = _measure(tree, outer)
    inodes = max(root.size // _INODE_RATIO, count + count // 4 + 1024)
    return (
        *("mkfs.ext4", "-q", "-F", "-L", "rootfs", "-U", root.identifier, "-m", "1"),
        *("-N", str(inodes), "-b", "4096", "-d", _TREE, "-E", f"offset={root.offset}"),
        *(_IMAGE, str(root.size // 4096)),
    )


class _Work:
    """Runs programs that see the tree, what goes to the boot partition, and the image."""

    def __init__(self, tree: HostPath, output: HostPath, outer: IdMap | None) -> None:
        self.tree = tree
        self._output = output
        self._outer = outer

    def run(self, argv: tuple[str, ...], commands: str = "") -> None:
        """Run one, ``commands`` on its standard input. Raises ImageError."""
        require_program(argv[0], "build the image")
        places = [Place(self.tree, _TREE), Place(self._output, _IMAGE, writable=True)]
        if os.path.isdir(_beside(self.tree)):
            places.append(Place(_beside(self.tree), _FIRMWARE))
        with tempfile.TemporaryFile() as asked:
            asked.write(commands.encode())
            asked.seek(0)
            with ConfinedProgram(
                argv,
                tuple(places),
                self._outer,
                purpose="build the image",
                stdin=asked.fileno(),
            ) as program:
                ended = program.wait()
        if ended.status:
            lines = (line.strip() for line in ended.said.splitlines() if _NO_MTAB not in line)
            said = "; ".join(line for line in lines if line)
            is_full = any(sign in said for sign in _NO_SPACE)
            hint = "give it more room: --size" if is_full else ""
            if _HOST_IS_FULL in said:
                hint = MORE_ROOM
            raise ImageError(f"Cannot build the image: {argv[0]}: {said[-300:]}", hint)
