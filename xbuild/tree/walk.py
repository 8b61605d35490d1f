"""Every program of a tree counted, for ``xbuild inspect --full``; off the start path.

Directories are walked without following symlinks, hard links count once. The pseudo file systems
that may be mounted at the top of a tree in use are left out.
"""

from __future__ import annotations

import os
import stat

from xbuild.errors import TargetError
from xbuild.record import GuestPath
from xbuild.tree.census import read_header
from xbuild.tree.resolve import target_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.tree.census import Census
    from xbuild.tree.resolve import DirectoryReader

PSEUDO_FILE_SYSTEMS = ("/dev", "/proc", "/sys")
SMALLEST_ELF = 52  # sizeof(Elf32_Ehdr)


def count_programs(reader: DirectoryReader, census: Census) -> None:
    """Count every program of the tree; what cannot be read leaves the census incomplete."""
    pending = [GuestPath("/")]
    seen: set[tuple[int, int]] = set()
    census.is_complete = True
    while pending:
        directory = pending.pop()
        try:
            fd = reader.open_directory(directory)
        except TargetError as error:
            census.note_unreadable(error)
            census.is_complete = False
            continue
        try:
            pending += _count_directory(fd, directory.rstrip("/"), census, seen)
        except OSError as error:
            census.note_unreadable(target_error(directory, error))
            census.is_complete = False
        finally:
            os.close(fd)


def _count_directory(
    fd: int, directory: str, census: Census, seen: set[tuple[int, int]]
) -> list[GuestPath]:
    """Count the programs in one directory and return its subdirectories."""
    below = []
    with os.scandir(fd) as entries:
        for entry in entries:
            path = GuestPath(f"{directory}/{entry.name}")
            if entry.is_dir(follow_symlinks=False):
                if path not in PSEUDO_FILE_SYSTEMS:
                    below.append(path)
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                if may_be_program(entry.name, status.st_mode, status.st_size):
                    _count_file(entry.name, fd, path, status, census, seen)
    return below


def _count_file(
    name: str,
    fd: int,
    path: GuestPath,
    status: os.stat_result,
    census: Census,
    seen: set[tuple[int, int]],
) -> None:
    if status.st_nlink > 1:
        key = (status.st_dev, status.st_ino)
        if key in seen:
            return
        seen.add(key)
    census.add(read_header(name, fd), path)


def may_be_program(name: str, mode: int, size: int) -> bool:
    """Tell whether a file may count as a program: executable, and no shared library by its name."""
    if size < SMALLEST_ELF or not mode & 0o111 or not stat.S_ISREG(mode):
        return False
    return not name.endswith(".so") and ".so." not in name
