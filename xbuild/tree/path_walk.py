"""One path resolution inside a root filesystem, and the places that are remembered between two.

Every step is one openat(2) of one component with O_NOFOLLOW; ``..`` goes back to a descriptor
already held, so that a rename meanwhile cannot lead outside either.
"""

from __future__ import annotations

import errno
import os
import stat

from xbuild.record import GuestPath

MAXSYMLINKS = 40  # path_resolution(7)

_PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACES_KEPT = 32


class Known:
    """Places met before: descriptors of directories, targets of symlinks, by parent and name."""

    def __init__(self, root_fd: int) -> None:
        self.places: dict[tuple[int, str], int | str] = {}
        self.fds = {root_fd}

    def keep(self, parent: int, name: str, place: int | str) -> None:
        """Keep a place if there is room, and its parent is kept: other numbers are used again."""
        if parent in self.fds and len(self.places) < _PLACES_KEPT:
            self.places[parent, name] = place
            if isinstance(place, int):
                self.fds.add(place)

    def close(self) -> None:
        """Close the directories."""
        for place in self.places.values():
            if isinstance(place, int):
                os.close(place)


class Walk:
    """One path resolution: a descriptor for each component from the root down to the last one."""

    def __init__(self, root_fd: int, known: Known | None = None) -> None:
        self._fds = [root_fd]
        self._names: list[str] = []
        self._known = known

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Go back to the root; a second call does nothing."""
        self._climb(len(self._names))

    @property
    def fd(self) -> int:
        """An O_PATH descriptor of where the walk is, open until it goes on or is closed."""
        return self._fds[-1]

    @property
    def path(self) -> GuestPath:
        """Where the walk is, without symlinks."""
        return GuestPath("/" + "/".join(self._names))

    def follow(self, path: str) -> None:
        """Go to ``path`` from the root. Raises OSError as path_resolution(7) would."""
        pending = path.split("/")[::-1]
        links = 0
        while pending:
            name = pending.pop()
            if name in ("", ".", ".."):
                self._require_directory()
                self._climb(1 if name == ".." else 0)
                continue
            target = self._enter(name)
            if target is None:
                continue
            links += 1
            if links > MAXSYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.startswith("/"):
                self._climb(len(self._names))
            pending += target.split("/")[::-1]

    def reopen(self, flags: int) -> int:
        """Open what the walk arrived at: a directory for listing or a regular file for reading."""
        mode = os.fstat(self.fd).st_mode
        if not names_readable(mode, flags):
            raise OSError(errno.EINVAL, f"it is {kind_of(mode)}")
        if not self._names:
            return os.open(".", flags, dir_fd=self.fd)
        fd = os.open(self._names[-1], flags, dir_fd=self._fds[-2])
        if names_readable(os.fstat(fd).st_mode, flags):
            return fd
        os.close(fd)
        raise OSError(errno.ESTALE, "it was replaced meanwhile")

    def _enter(self, name: str) -> str | None:
        """Descend into ``name``, or return its target where it is a symlink."""
        parent, known = self.fd, self._known
        place = None if known is None else known.places.get((parent, name))
        if place is None:
            place, mode = self._open(parent, name)
            if known is not None and (isinstance(place, str) or stat.S_ISDIR(mode)):
                known.keep(parent, name, place)
        if isinstance(place, str):
            return place
        self._fds.append(place)
        self._names.append(name)
        return None

    @staticmethod
    def _open(parent: int, name: str) -> tuple[int | str, int]:
        """Return a descriptor of what is there, or a symlink's target, and its st_mode."""
        fd = os.open(name, _PATH_FLAGS, dir_fd=parent)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode):
                target = os.readlink("", dir_fd=fd)
                os.close(fd)
                return target, mode
        except BaseException:
            os.close(fd)
            raise
        return fd, mode

    def _require_directory(self) -> None:
        if self._names and not stat.S_ISDIR(os.fstat(self.fd).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def _climb(self, levels: int) -> None:
        for _ in range(min(levels, len(self._names))):
            fd = self._fds.pop()
            if self._known is None or fd not in self._known.fds:
                os.close(fd)
            self._names.pop()


def names_readable(mode: int, flags: int) -> bool:
    """Tell whether a file of st_mode ``mode`` may be opened with ``flags``."""
    return stat.S_ISDIR(mode) if flags & os.O_DIRECTORY else stat.S_ISREG(mode)


def kind_of(mode: int) -> str:
    """Return the kind of file that ``mode`` (st_mode) says, with its article."""
    kinds = {
        stat.S_IFREG: "a regular file",
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "a file of unknown kind")
