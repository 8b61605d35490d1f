"""Copying trees of files through a pipe: between the host, and a container that sees none of it.

One process packs what it may read, another unpacks with its own rights: regular files, directories
and symbolic links, with modes (0777) and times, but no owners. Off the start path.
"""

from __future__ import annotations

import errno
import marshal
import os
import stat
from contextlib import suppress

from xbuild.sandbox import _linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_LENGTH_BYTES = 4
_CHUNK = 1 << 16
_MODES = 0o777
_DEPTH_LIMIT = 400  # directories in one another, each of which takes a descriptor and a call
_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH = _linux.RESOLVE_NO_SYMLINKS | _linux.RESOLVE_BENEATH


def pack(path: str, pipe: int) -> None:
    """Send what is at ``path``, links on the way to it followed; an error is sent as well."""
    try:
        directory, name = os.path.split(os.path.normpath(path))
        top = _open_directory(directory)
        try:
            target = name
            if name and stat.S_ISLNK(os.lstat(name, dir_fd=top).st_mode):
                os.close(top)
                resolved = os.path.realpath(path)
                top, target = _open_directory(os.path.dirname(resolved)), os.path.basename(resolved)
            mode = os.lstat(target or ".", dir_fd=top).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
            _send(pipe, ("top", name))
            _pack_entry(top, target or ".", "", pipe)
        finally:
            os.close(top)
        _send(pipe, ("end",))
    except OSError as error:
        if error.errno == errno.EPIPE:
            return  # nobody wants it any more
        _send(pipe, ("error", error.errno or 0, str(error.filename or path)))


def _open_directory(path: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY
    return _linux.openat2(
        _linux.AT_FDCWD, path or "/", flags=flags, resolve=_linux.RESOLVE_NO_MAGICLINKS
    )


def _pack_entry(parent: int, name: str, place: str, pipe: int) -> None:
    status = os.lstat(name, dir_fd=parent)
    times = status.st_mtime_ns
    if stat.S_ISLNK(status.st_mode):
        _send(pipe, ("link", place, os.readlink(name, dir_fd=parent)))
    elif stat.S_ISDIR(status.st_mode):
        if place.count("/") > _DEPTH_LIMIT:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), f"{place[:40]}...")
        _send(pipe, ("directory", place, status.st_mode & _MODES, times))
        fd = os.open(name, _READING | os.O_DIRECTORY, dir_fd=parent)
        try:
            for each in sorted(os.listdir(fd)):
                _pack_entry(fd, each, f"{place}/{each}" if place else each, pipe)
        finally:
            os.close(fd)
    elif stat.S_ISREG(status.st_mode):
        fd = os.open(name, _READING, dir_fd=parent)
        try:
            size = os.fstat(fd).st_size
            _send(pipe, ("file", place, status.st_mode & _MODES, times, size))
            _send_content(fd, size, pipe)
        finally:
            os.close(fd)


def _send_content(fd: int, size: int, pipe: int) -> None:
    left, failure = size, None
    while left:
        chunk = b""
        try:
            chunk = os.read(fd, min(left, _CHUNK))
        except OSError as error:
            failure = error
        chunk = chunk or bytes(min(left, _CHUNK))  # it became shorter, or cannot be read
        _write(pipe, chunk)
        left -= len(chunk)
    if failure is not None:
        raise failure


def _send(pipe: int, frame: tuple[str | int, ...]) -> None:
    content = marshal.dumps(frame)
    _write(pipe, len(content).to_bytes(_LENGTH_BYTES) + content)


def _write(pipe: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(pipe, view) :]


def unpack(pipe: int, path: str) -> None:
    """Make what the other side packs at ``path``, or in it where it is a directory.

    Raises OSError, of either side; what comes after is then still read, so that the next copy
    begins where it should.
    """
    _unpack(pipe, lambda name: _base(path, name))


def unpack_outside(pipe: int, path: str, *, is_guests: bool) -> None:
    """Do the same where a guest may have laid links meanwhile. Raises OSError.

    None is followed on the way, which is to be without any; nor at its end, where the guest may
    write to that directory (``is_guests``): a file takes its place.
    """
    _unpack(pipe, lambda name: _base_outside(path, name, is_guests=is_guests))


def _unpack(pipe: int, find_base: Callable[[str], tuple[int, str]]) -> None:
    frames = _frames(pipe)
    failure: OSError | None = None
    base = -1
    name = ""
    for kind, *rest in frames:
        if kind == "error":
            failure = failure or OSError(int(rest[0]), os.strerror(int(rest[0])), str(rest[1]))
            continue
        try:
            if failure is None and kind == "top":
                base, name = find_base(str(rest[0]))
            elif failure is None:
                _unpack_entry(base, name, kind, rest, pipe)
                continue
        except OSError as error:
            failure = error
        if kind == "file":
            _skip(pipe, int(rest[3]))
    if base >= 0:
        os.close(base)
    if failure is not None:
        raise failure


def _base(path: str, name: str) -> tuple[int, str]:
    """Return the directory to unpack in, and the name there: the packed one's, or a new one."""
    if os.path.isdir(path):
        return _open_directory(path), name or "."
    directory, new = os.path.split(os.path.normpath(path))
    os.makedirs(directory or "/", exist_ok=True)
    return _open_directory(directory), new


def _base_outside(path: str, name: str, *, is_guests: bool) -> tuple[int, str]:
    directory, new = os.path.split(os.path.normpath(path))
    parent = _open_way(directory)
    try:
        resolve = _BENEATH if is_guests else _linux.RESOLVE_NO_MAGICLINKS
        flags = os.O_RDONLY | os.O_DIRECTORY
        base = _linux.openat2(parent, new or ".", flags=flags, resolve=resolve)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            os.close(parent)
            raise
        return parent, new
    os.close(parent)
    return base, name or "."


def _open_way(path: str) -> int:
    """Open a directory, made if missing, on whose path there is no link."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        return _linux.openat2(
            _linux.AT_FDCWD, path, flags=flags, resolve=_linux.RESOLVE_NO_SYMLINKS
        )
    except FileNotFoundError:
        directory, new = os.path.split(path)
        parent = _open_way(directory)
    try:
        with suppress(FileExistsError):
            os.mkdir(new, dir_fd=parent)
        return _linux.openat2(parent, new, flags=flags, resolve=_BENEATH)
    finally:
        os.close(parent)


def _unpack_entry(base: int, name: str, kind: str, rest: Sequence[str | int], pipe: int) -> None:
    place = f"{name}/{rest[0]}" if rest[0] else name
    directory, _, last = place.rpartition("/")
    parent = _linux.openat2(
        base, directory or ".", flags=os.O_RDONLY | os.O_DIRECTORY, resolve=_BENEATH
    )
    try:
        match kind:
            case "directory":
                _make_directory(parent, last, int(rest[1]))
            case "link":
                _make_way(parent, last)
                os.symlink(str(rest[1]), last, dir_fd=parent)
            case "file":
                _make_file(parent, last, rest, pipe)
    finally:
        os.close(parent)


def _make_directory(parent: int, name: str, mode: int) -> None:
    if name == ".":
        return
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
            raise
        return
    os.chmod(name, mode | stat.S_IRWXU, dir_fd=parent)  # what comes must get in


def _make_file(parent: int, name: str, rest: Sequence[str | int], pipe: int) -> None:
    mode, time_ns, left = int(rest[1]), int(rest[2]), int(rest[3])
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    failure: OSError | None = None
    try:
        _make_way(parent, name)
        fd = os.open(name, flags, 0o600, dir_fd=parent)
    except OSError as error:
        _skip(pipe, left)
        raise error from None
    try:
        while left:
            chunk = _read(pipe, min(left, _CHUNK))
            left -= len(chunk)
            if failure is None:
                try:
                    _write(fd, chunk)
                except OSError as error:
                    failure = OSError(error.errno, error.strerror, name)
        os.fchmod(fd, mode)
        os.utime(fd, ns=(time_ns, time_ns))
    finally:
        os.close(fd)
    if failure is not None:
        raise failure


def _make_way(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def _frames(pipe: int) -> Iterator[tuple[str, ...]]:
    while True:
        content = _read(pipe, int.from_bytes(_read(pipe, _LENGTH_BYTES)))
        frame = marshal.loads(content)
        if frame[0] == "end":
            return
        yield frame
        if frame[0] == "error":
            return


def _skip(pipe: int, left: int) -> None:
    while left:
        left -= len(_read(pipe, min(left, _CHUNK)))


def _read(pipe: int, count: int) -> bytes:
    content = b""
    while len(content) < count:
        chunk = os.read(pipe, count - len(content))
        if not chunk:
            raise OSError(errno.EPIPE, "the other side ended")
        content += chunk
    return content
