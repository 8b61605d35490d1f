"""Tell disk images from other files by their content, and from the formats of virtual machines.

For choosing what to do with a file that was named; what really is in it, blkid(8) says later.
"""

from __future__ import annotations

import os
import shlex
import stat

from xbuild.binary.elf import ELFMAG
from xbuild.errors import DamagedArchive, UnsupportedImage
from xbuild.record import HostPath
from xbuild.tree.members import is_tar
from xbuild.tree.resolve import target_error
from xbuild.tree.stream import ForwardStream

RECOGNISE_BYTES = (64 << 10) + 0x48  # up to the end of btrfs's magic

_SIGNATURES: tuple[tuple[int, bytes], ...] = (
    (510, b"\x55\xaa"),  # MBR, and FAT's boot sector
    (512, b"EFI PART"),
    (4096, b"EFI PART"),  # with sectors of 4096 bytes
    (1080, b"\x53\xef"),  # ext2, ext3, ext4
    (0, b"hsqs"),  # squashfs
    (1024, b"\xe2\xe1\xf5\xe0"),  # erofs
    (0, b"XFSB"),
    (65600, b"_BHRfS_M"),  # btrfs
    (32769, b"CD001"),  # ISO 9660
    (0, b"LUKS\xba\xbe"),
    (512, b"LABELONE"),  # LVM
    (1024, b"\x10\x20\xf5\xf2"),  # f2fs
)
# Other things with an MBR's last two bytes: kernels, of x86 and of those with an EFI stub.
_KERNELS: tuple[tuple[int, bytes], ...] = ((514, b"HdrS"), (56, b"ARM\x64"), (56, b"RSC\x05"))
_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"QFI\xfb", "a qcow2 disk image", "qcow2"),
    (0, b"KDMV", "a VMDK disk image", "vmdk"),
    (0, b"# Disk DescriptorFile", "a VMDK disk image", "vmdk"),
    (64, b"\x7f\x10\xda\xbe", "a VirtualBox disk image", "vdi"),
    (0, b"vhdxfile", "a VHDX disk image", "vhdx"),
    (0, b"conectix", "a VHD disk image", "vpc"),
)
_NAMES_FILES = (
    "\nthat also reads the files which it names as parts of itself, which may be any of yours:"
    " qemu-img info lists them"
)
_SPARSE = b"\x3a\xff\x26\xed"  # Android's sparse images


def is_image(path: HostPath) -> bool:
    """Tell whether ``path`` is a disk image, compressed or not, or a block device.

    A file that cannot be read or is damaged is none: whoever opens it next says why. Raises
    UnsupportedImage for the formats of virtual machines, with the command that converts one.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    if stat.S_ISBLK(mode):
        return True
    if not stat.S_ISREG(mode):
        return False
    return looks_like_image(_content_beginning(path), path)


def looks_like_image(header: bytes, path: HostPath) -> bool:
    """Tell whether a content that begins with ``header`` is a raw disk image.

    Raises UnsupportedImage as is_image() does.
    """
    if header.startswith(ELFMAG) or is_tar(header):
        return False
    refuse_foreign(header, path)
    if any(_has(header, at, magic) for at, magic in _KERNELS):
        return False
    return any(_has(header, at, magic) for at, magic in _SIGNATURES)


def refuse_foreign(header: bytes, path: HostPath) -> None:
    """Raise UnsupportedImage for another format than a raw image, with the converting command."""
    source, target = shlex.quote(path), shlex.quote(f"{os.path.splitext(path)[0]}.img")
    for at, magic, name, driver in _FOREIGN:
        if _has(header, at, magic):
            raise UnsupportedImage(
                f"{path} is {name}; only raw ones are read",
                f"qemu-img convert -f {driver} -O raw {source} {target}"
                + (_NAMES_FILES if driver in ("qcow2", "vmdk") else ""),
            )
    if header.startswith(_SPARSE):
        raise UnsupportedImage(
            f"{path} is an Android sparse image; only raw ones are read",
            f"simg2img {source} {target}",
        )


def _has(header: bytes, at: int, magic: bytes) -> bool:
    return header[at : at + len(magic)] == magic


def _content_beginning(path: HostPath) -> bytes:
    """Return the first bytes of a file's content, unpacked; b"" where it cannot be read."""
    try:
        with ForwardStream(path) as stream:
            return stream.peek(RECOGNISE_BYTES)
    except DamagedArchive:
        return b""
    except OSError as error:
        raise target_error(path, error) from error
