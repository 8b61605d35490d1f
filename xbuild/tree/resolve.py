"""Reading inside a root filesystem: symlinks resolved within it, nothing but regular files read.

The tree is not trusted. A symlink, absolute or climbing, ends at the tree's own root as it would
after chroot(2); FIFOs, sockets and device nodes are never opened. What the files mean is not
known here. On the start path of ``xbuild run``.
"""

from __future__ import annotations

import errno
import os
import stat

from xbuild.errors import SymlinkLoop, TargetError, TargetNotFound
from xbuild.record import GuestPath, HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import BinaryIO, Self

MAXSYMLINKS = 40  # path_resolution(7)

_PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LIST_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACES_KEPT = 32
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class Entry(Record):
    """What a path leads to: ``path`` is resolved, ``mode`` is st_mode (stat.S_ISREG and so on)."""

    path: GuestPath
    mode: int
    size: int
    uid: int
    gid: int


class TreeReader:
    """A root filesystem to read from: a directory, or what was kept of an archive.

    Paths are absolute inside the tree (a leading slash may be missing), bytes that are no UTF-8
    kept by surrogateescape. ``label`` names the tree in messages.
    """

    label: str

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the reader holds; a second call does nothing."""

    def resolve(self, path: GuestPath) -> GuestPath:
        """Follow every symlink and return the final path.

        Raises TargetNotFound, SymlinkLoop, and TargetError where a directory cannot be searched.
        """
        raise NotImplementedError

    def lookup(self, path: GuestPath) -> Entry | None:
        """Return what ``path`` leads to, or None when there is nothing.

        Raises SymlinkLoop and TargetError as resolve() does.
        """
        raise NotImplementedError

    def read(self, path: GuestPath, limit: int) -> bytes:
        """Return at most the first ``limit`` bytes of a regular file.

        Raises TargetError, also when the path leads to anything but a regular file.
        """
        return self.look(path, limit)[1]

    def look(self, path: GuestPath, limit: int) -> tuple[GuestPath, bytes]:
        """Return the resolved path of a regular file and its beginning, as read() does."""
        raise NotImplementedError

    def open(self, path: GuestPath) -> BinaryIO:
        """Open a regular file for reading and seeking; the caller closes it. Raises TargetError."""
        raise NotImplementedError

    def listdir(self, path: GuestPath, limit: int | None = None) -> tuple[str, ...]:
        """Return the names in a directory, sorted; the first ``limit`` met where one is given.

        Raises TargetError.
        """
        raise NotImplementedError

    def present(self, directory: GuestPath, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``names`` that the directory has, dangling symlinks too; never raises."""
        raise NotImplementedError

    def mode_of(self, path: GuestPath) -> int | None:
        """Return the st_mode of what is at ``path``, be it a symlink; None where there is nothing.

        The directories above it must be known to be no symlinks. Raises TargetError.
        """
        raise NotImplementedError

    def link_at(self, path: GuestPath) -> str:
        """Return where the symlink at ``path`` leads, found as by mode_of(). Raises TargetError."""
        raise NotImplementedError


class DirectoryReader(TreeReader):
    """A root filesystem in a directory of this host.

    Owns ``fd``, an O_PATH descriptor of the root, until close(). Every step of a resolution is one
    openat(2) of one component with O_NOFOLLOW; ``..`` goes back to a descriptor already held, so a
    rename meanwhile cannot lead outside either.
    """

    _known: _Known | None = None

    def __init__(self, root: HostPath) -> None:
        """Open ``root``, following symlinks to it. Raises TargetNotFound, TargetError."""
        self.root = root
        self.label = root
        try:
            self.fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise TargetError(f"{root} is not a directory") from error
        except (OSError, ValueError) as error:
            raise target_error(root, error) from error

    def close(self) -> None:
        """Close the root's descriptor; a second call does nothing."""
        if self._known is not None:
            self._known.close()
            self._known = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remember_places(self) -> None:
        """Look up each of the first directories and symlinks once, as they are when first met.

        For one short look at a tree: what changes meanwhile may not be seen.
        """
        self._known = self._known or _Known(self.fd)

    def resolve(self, path: GuestPath) -> GuestPath:
        """Follow every symlink and return the final path: see TreeReader."""
        with self._walk(path) as walk:
            return walk.path

    def lookup(self, path: GuestPath) -> Entry | None:
        """Return what ``path`` leads to, or None when there is nothing: see TreeReader."""
        try:
            with self._walk(path) as walk:
                status = os.fstat(walk.fd)
                return Entry(
                    walk.path, status.st_mode, status.st_size, status.st_uid, status.st_gid
                )
        except TargetNotFound:
            return None

    def open(self, path: GuestPath) -> BinaryIO:
        """Open a regular file: see TreeReader."""
        with self._walk(path) as walk:
            try:
                return os.fdopen(walk.reopen(READ_FLAGS), "rb", buffering=4096)
            except OSError as error:
                raise self._error(path, error) from error

    def look(self, path: GuestPath, limit: int) -> tuple[GuestPath, bytes]:
        """Return the resolved path of a regular file and its beginning: see TreeReader."""
        with self._walk(path) as walk:
            try:
                fd = walk.reopen(READ_FLAGS)
                try:
                    return walk.path, _read_fully(fd, limit)
                finally:
                    os.close(fd)
            except OSError as error:
                raise self._error(path, error) from error

    def listdir(self, path: GuestPath, limit: int | None = None) -> tuple[str, ...]:
        """Return the names in a directory: see TreeReader."""
        fd = self.open_directory(path)
        names: list[str] = []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if limit is not None and len(names) >= limit:
                        break
                    names.append(entry.name)
        except OSError as error:
            raise self._error(path, error) from error
        finally:
            os.close(fd)
        return tuple(sorted(names))

    def present(self, directory: GuestPath, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``names`` that the directory has: see TreeReader."""
        try:
            with self._walk(directory) as walk:
                return tuple(name for name in names if _exists(name, walk.fd))
        except TargetError:
            return ()

    def mode_of(self, path: GuestPath) -> int | None:
        """Return the st_mode of what is at ``path``: see TreeReader."""
        try:
            return os.lstat(path[1:], dir_fd=self.fd).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise TargetError(f"Cannot look up {path} in {self.label}: {error.strerror}") from error

    def link_at(self, path: GuestPath) -> str:
        """Return where a symlink leads; somebody may have replaced it since: see TreeReader."""
        try:
            return os.readlink(path[1:], dir_fd=self.fd)
        except OSError as error:
            raise TargetError(
                f"Cannot read the link {path} in {self.label}: {error.strerror}"
            ) from error

    def open_directory(self, path: GuestPath) -> int:
        """Return a readable descriptor of a directory; the caller closes it. Raises TargetError."""
        with self._walk(path) as walk:
            try:
                return walk.reopen(_LIST_FLAGS)
            except OSError as error:
                raise self._error(path, error) from error

    def _walk(self, path: GuestPath) -> _Walk:
        walk = _Walk(self.fd, self._known)
        try:
            walk.follow(path)
        except (OSError, ValueError) as error:
            walk.close()
            raise self._error(path, error) from error
        return walk

    def _error(self, path: GuestPath, error: OSError | ValueError) -> TargetError:
        return target_error(path, error, f" in {self.label}")


class _Known:
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
        for place in self.places.values():
            if isinstance(place, int):
                os.close(place)


class _Walk:
    """One path resolution: a descriptor for each component from the root down to the last one."""

    def __init__(self, root_fd: int, known: _Known | None = None) -> None:
        self._fds = [root_fd]
        self._names: list[str] = []
        self._known = known

    def __enter__(self) -> _Walk:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()

    def close(self) -> None:
        self._climb(len(self._names))

    @property
    def fd(self) -> int:
        return self._fds[-1]

    @property
    def path(self) -> GuestPath:
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


def target_error(path: str, error: OSError | ValueError, where: str = "") -> TargetError:
    """Return the error that says why ``path`` could not be read."""
    if isinstance(error, ValueError):  # a NUL in the path
        return TargetNotFound(f"No such file: {path}{where}")
    if error.errno in _ABSENT:
        return TargetNotFound(f"No such file: {path}{where}")
    if error.errno == errno.ELOOP:
        return SymlinkLoop(f"Cannot follow {path}{where}: it is a loop of symbolic links")
    hint = ""
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "run as the owner of the tree, or as root"
    return TargetError(f"Cannot read {path}{where}: {error.strerror}", hint)


def _exists(name: str, directory_fd: int) -> bool:
    return os.access(name, os.F_OK, dir_fd=directory_fd, follow_symlinks=False)


def _read_fully(fd: int, limit: int) -> bytes:
    parts = []
    while limit > 0:
        part = os.read(fd, min(limit, 1 << 20))
        if not part:
            break
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)
