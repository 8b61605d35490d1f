"""How much room a file system has left, and how much of it is always left to others."""

from __future__ import annotations

import os

RESERVE = 256 << 20  # bytes left free where something is unpacked
ENDLESS = 1 << 62
LEAST_INODES = 1000
MORE_ROOM = "make room, or name a target on another file system"


def has_room(directory: str, wanted: int = 0) -> bool:
    """Tell whether so many bytes can be written below ``directory``, with room left for others."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        return free_room(fd) >= RESERVE + wanted and free_inodes(fd) > LEAST_INODES
    finally:
        os.close(fd)


def free_room(fd: int) -> int:
    """Return the bytes that are free for a file; ENDLESS where no account is kept (ramfs)."""
    room = os.fstatvfs(fd)
    return room.f_bavail * room.f_frsize if room.f_blocks else ENDLESS


def free_inodes(fd: int) -> int:
    """Return how many files can be made; ENDLESS where they are not numbered (btrfs)."""
    room = os.fstatvfs(fd)
    return room.f_favail if room.f_files else ENDLESS
