"""Open the tree in a partition by whatever reads its file system here, best without root."""

from __future__ import annotations

import os

from xbuild.errors import UnsupportedImage
from xbuild.image.file import ImageFile
from xbuild.image.filesystem import EXT, Filesystem
from xbuild.image.program import find_program
from xbuild.image.table import Partition
from xbuild.tree.resolve import TreeReader

# What a root tree may be in: file systems with owners, modes and symlinks.
NATIVE = frozenset((*EXT, "btrfs", "erofs", "f2fs", "squashfs", "xfs"))


def open_partition(image: ImageFile, partition: Partition, filesystem: Filesystem) -> TreeReader:
    """Open the tree of a partition; ``image`` must stay open as long as the reader.

    Raises UnsupportedImage where nothing here reads it, saying what is missing; ImageToolMissing,
    DamagedImage, CannotAttach.
    """
    label = f"{image.label}, partition {partition.number}" if partition.number else image.label
    if image.by_kernel and kernel_has(filesystem.type):
        return _open_mounted(image, partition, filesystem.type, label)
    match filesystem.type:
        case "ext2" | "ext3" | "ext4":
            from xbuild.image.debugfs import ExtReader

            return ExtReader(image, partition.offset, partition.size, label)
        case "squashfs" if find_program("unsquashfs") is not None:
            from xbuild.image.squashfs import SquashfsReader

            return SquashfsReader(image, partition.offset, label)
        case _:
            return _open_mounted(image, partition, filesystem.type, label)


def kernel_has(filesystem: str) -> bool:
    """Tell whether the kernel mounts a type of file system without loading a module."""
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(line.split()[-1] == filesystem for line in file)


def _open_mounted(
    image: ImageFile, partition: Partition, filesystem: str, label: str
) -> TreeReader:
    if os.geteuid() != 0:
        instead = ", or install squashfs-tools" if filesystem == "squashfs" else ""
        raise UnsupportedImage(
            f"only the kernel reads {filesystem} here, and that needs root",
            f"run as root{instead}",
        )
    from xbuild.image.mounted import MountedReader

    return MountedReader(image, partition.offset, partition.size, filesystem, label)
