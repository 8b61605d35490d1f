"""Reading inside a root filesystem: symlinks resolved within it, nothing but regular files read.

The tree is not trusted. A symlink, absolute or climbing, ends at the tree's own root as it would
after chroot(2); FIFOs, sockets and device nodes are never opened. What the files mean is not
known here. On the start path of ``xbuild run``.
"""

from __future__ import annotations

import errno
import os

from xbuild.errors import SymlinkLoop, TargetError, TargetNotFound
from xbuild.record import GuestPath, HostPath, Record
from xbuild.tree.path_walk import Known, Walk, kind_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO, Self

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LIST_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
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

    def __exit__(self, *_exception: object) -> None:
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

    _known: Known | None = None

    def __init__(self, root: HostPath) -> None:
        """Open ``root``, following symlinks to it. Raises TargetNotFound, TargetError."""
        self.root = root
        self.label = root
        try:
            self.fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise TargetError(
                f"{root} is {_kind_at(root)}, not a directory",
                "name the directory that has usr and etc in it",
            ) from error
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
        self._known = self._known or Known(self.fd)

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
            raise TargetError(
                f"Cannot look up {path} in {self.label}: {error.strerror}",
                "dmesg says more where a disk fails",
            ) from error

    def link_at(self, path: GuestPath) -> str:
        """Return where a symlink leads; somebody may have replaced it since: see TreeReader."""
        try:
            return os.readlink(path[1:], dir_fd=self.fd)
        except OSError as error:
            raise TargetError(
                f"Cannot read the link {path} in {self.label}: {error.strerror}",
                "somebody changes the tree meanwhile: again, when that is over",
            ) from error

    def open_directory(self, path: GuestPath) -> int:
        """Return a readable descriptor of a directory; the caller closes it. Raises TargetError."""
        with self._walk(path) as walk:
            try:
                return walk.reopen(_LIST_FLAGS)
            except OSError as error:
                raise self._error(path, error) from error

    def _walk(self, path: GuestPath) -> Walk:
        walk = Walk(self.fd, self._known)
        try:
            walk.follow(path)
        except (OSError, ValueError) as error:
            walk.close()
            raise self._error(path, error) from error
        return walk

    def _error(self, path: GuestPath, error: OSError | ValueError) -> TargetError:
        return target_error(path, error, f" in {self.label}")


def _kind_at(path: HostPath) -> str:
    try:
        return kind_of(os.stat(path).st_mode)
    except OSError:
        return "below a file"


def target_error(path: str, error: OSError | ValueError, where: str = "") -> TargetError:
    """Return the error that says why ``path`` could not be read."""
    if isinstance(error, ValueError):  # a NUL in the path
        return TargetNotFound(f"No such file: {path}{where}")
    if error.errno in _ABSENT:
        return TargetNotFound(f"No such file: {path}{where}")
    if error.errno == errno.ELOOP:
        return SymlinkLoop(f"Cannot follow {path}{where}: it is a loop of symbolic links")
    hint = "dmesg says more where a disk fails"
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
