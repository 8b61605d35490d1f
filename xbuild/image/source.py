"""The raw image that a run works in: the one named, or what a compressed one unpacks to.

A run that writes gets a file beside the compressed one, which is there only once it is complete;
another run gets a file without a name, which the kernel takes back however the run ends.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Callable
from contextlib import suppress

from xbuild.errors import ImageError
from xbuild.image.compressed import (
    OTHER_SCRATCH,
    Progress,
    compression,
    raw_name,
    scratch_directory,
    unpack,
    unpack_command,
    unpack_for_reading,
)
from xbuild.image.content import find_map
from xbuild.image.extents import total_length
from xbuild.image.file import ImageFile
from xbuild.image.lock import lock_image
from xbuild.record import HostPath, Record
from xbuild.sandbox.room import free_room

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


class Source(Record):
    """An image to run in: ``path`` is its name in plans and messages, ``opened`` leads to it.

    ``descriptor`` is that of a file without a name, open as long as this process.
    """

    path: HostPath
    opened: HostPath
    descriptor: int | None = None
    notes: tuple[str, ...] = ()


def provide_source(
    path: HostPath, *, writes: bool, keep: bool, progress: Progress | None = None
) -> Source:
    """Return the raw image for a run; with ``writes`` and ``keep`` a file is left for later.

    Raises ImageError for lack of room and where the file would replace another, DamagedImage,
    ImageBusy.
    """
    if not stat.S_ISREG(os.stat(path).st_mode) or not compression(path):
        return Source(path, path)
    target = raw_name(path)
    if writes:
        _refuse_existing(path, target)
    with lock_image(path, exclusive=False) as lock:
        before = os.fstat(lock.fd)

        def require_unchanged() -> None:
            _refuse_changed(path, before, os.fstat(lock.fd))

        if writes and keep:
            _unpack_beside(path, target, require_unchanged, progress)
            note = f"{path} was unpacked to {target}, which stays"
            return Source(target, target, notes=(note,))
        fd = _unpack_unnamed(path, progress)
        try:
            require_unchanged()
        except ImageError:
            os.close(fd)
            raise
    place = HostPath(f"/proc/self/fd/{fd}")
    if writes:
        return Source(target, place, notes=(f"{path} would be unpacked to {target}",))
    note = f"{path} is unpacked in {scratch_directory()}, for this run alone"
    return Source(path, place, fd, (note,))


def _refuse_changed(path: HostPath, before: os.stat_result, now: os.stat_result) -> None:
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ImageError(
            f"{path} was changed by another program while it was unpacked",
            "find out who writes to it, then do this again",
        )


def _refuse_existing(path: HostPath, target: HostPath) -> None:
    if os.path.lexists(target):
        raise ImageError(
            f"{path} would be unpacked to {target}, which exists",
            f"to work in that one: xbuild run {shlex.quote(target)}\n"
            "to work in a fresh one: move it away, or run with --ephemeral",
        )


def _unpack_unnamed(path: HostPath, progress: Progress | None) -> int:
    directory = scratch_directory()
    with _Directory(directory) as place:
        _refuse_full(path, place, directory, OTHER_SCRATCH)
    return unpack_for_reading(path, progress)


def _unpack_beside(
    path: HostPath,
    target: HostPath,
    require_unchanged: Callable[[], None],
    progress: Progress | None,
) -> None:
    directory = os.path.dirname(target)
    elsewhere = "make room, or unpack it where there is room: " + unpack_command(
        path, compression(path), HostPath("/elsewhere/IMAGE")
    )
    with _Directory(directory) as place:
        _refuse_full(path, place, directory, elsewhere)
        fd, name = _open_new(path, target, place)
        try:
            unpack(path, fd, directory, progress, more_room=elsewhere)
            _give_owner(path, fd)
            os.fsync(fd)
            require_unchanged()
            _name(fd, name, target, place)
        except FileExistsError as error:
            raise ImageError(
                f"Cannot unpack {path}: {target} was made meanwhile",
                "run it again: what was made is used then",
            ) from error
        except OSError as error:
            raise ImageError(f"Cannot unpack {path}: {error.strerror}", elsewhere) from error
        finally:
            os.close(fd)
            if name:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=place)


class _Directory:
    """An open directory, for as long as a ``with`` lasts."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> int:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(
                f"Cannot unpack into {self._path}: {error.strerror}",
                "look at who may write there: ls -ld; --read-only and --ephemeral unpack elsewhere",
            ) from error
        return self._fd

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)


def _refuse_full(path: HostPath, place: int, directory: str, instead: str) -> None:
    """Raise ImageError where the room will not do: by the block map, else at least as packed."""
    with ImageFile(path) as image:
        block_map = find_map(image)
        least = image.size
    if block_map is not None:
        least = total_length(r.extent for r in block_map.ranges)
    free = free_room(place)
    if free < least:
        raise ImageError(
            f"Cannot unpack {path} in {directory}: it needs {least >> 20} MiB or more,"
            f" and {free >> 20} MiB are free",
            instead,
        )


def _open_new(path: HostPath, target: HostPath, place: int) -> tuple[int, str]:
    """Open a new file without a name, or with one of its own where there is no such thing."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=place), ""
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise _cannot_write(path, target, error) from error
    name = f".{os.path.basename(target)}.xbuild-unpack"
    with suppress(OSError):
        os.unlink(name, dir_fd=place)  # what a run left that was killed
    try:
        return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place), name
    except OSError as error:
        raise _cannot_write(path, target, error) from error


def _cannot_write(path: HostPath, target: HostPath, error: OSError) -> ImageError:
    return ImageError(
        f"Cannot unpack {path} to {target}: {error.strerror}",
        "--ephemeral and --read-only unpack it elsewhere, for the run alone",
    )


def _give_owner(path: HostPath, fd: int) -> None:
    """Let the image belong to whom the compressed one belongs."""
    status = os.stat(path)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode) & 0o666 | stat.S_IWUSR)


def _name(fd: int, name: str, target: HostPath, place: int) -> None:
    """Give the complete file its name, unless that is taken. Raises OSError."""
    base = os.path.basename(target)
    source = name or f"/proc/self/fd/{fd}"
    os.link(source, base, src_dir_fd=place, dst_dir_fd=place, follow_symlinks=not name)
    os.fsync(place)
