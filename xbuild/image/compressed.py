"""Compressed images unpacked: into a file without a name, or into one to work in.

Zeros become holes. The room is checked while it fills, as no format says reliably how much it
unpacks to, and some of it is always left to others.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable

from xbuild.errors import DamagedArchive, DamagedImage, ImageError
from xbuild.record import HostPath
from xbuild.sandbox import room
from xbuild.tree.stream import ForwardStream, compression_of

CHUNK = 1 << 20
BLOCK = 4096
SIZE_LIMIT = 1 << 43  # bytes of content: 8 TiB
SUFFIXES = (".gz", ".bz2", ".xz", ".lzma", ".zst")

OTHER_SCRATCH = "make room, or name a directory with more: TMPDIR=DIRECTORY xbuild …"
_ZERO_CHUNK = bytes(CHUNK)

Progress = Callable[[int, int], None]
"""Told the bytes of the file read so far, and all of it."""


def compression(path: HostPath) -> str:
    """Return the name of a file's compression, "" for none. Raises ImageError."""
    try:
        with open(path, "rb") as file:
            return compression_of(file.read(8)) or ""
    except OSError as error:
        raise ImageError(
            f"Cannot read {path}: {error.strerror}",
            "look at who may read it: ls -l; where the disk fails, dmesg says more",
        ) from error


def raw_name(path: HostPath) -> HostPath:
    """Return the name of what a compressed image unpacks to, in the same directory."""
    stem, suffix = os.path.splitext(path)
    is_usual = suffix in SUFFIXES and os.path.basename(stem) != ""
    return HostPath(stem if is_usual else f"{path}.raw")


def unpack_command(path: HostPath, kind: str, target: HostPath) -> str:
    """Return the shell command that unpacks an image of a kind of compression to ``target``."""
    program = "xz" if kind == "lzma" else kind
    return f"{program} -dc {shlex.quote(path)} >{shlex.quote(target)}"


def scratch_directory() -> HostPath:
    """Return where files without a name are made."""
    return HostPath(os.environ.get("TMPDIR") or "/var/tmp")


def unpack_for_reading(path: HostPath, progress: Progress | None = None) -> int:
    """Unpack into a file without a name, in $TMPDIR or /var/tmp; the caller closes the descriptor.

    Raises DamagedImage for a file that is cut off or garbled, ImageError for lack of room.
    """
    directory = scratch_directory()
    fd = open_unnamed(path, directory)
    try:
        unpack(path, fd, directory, progress)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_unnamed(path: HostPath, directory: HostPath) -> int:
    """Return a new file without a name, for what is in ``path``. Raises ImageError."""
    try:
        fd, name = tempfile.mkstemp(prefix="xbuild-image-", dir=directory)
    except OSError as error:
        raise ImageError(
            f"Cannot unpack {path} in {directory}: {error.strerror}",
            "make room there, or name another place: TMPDIR",
        ) from error
    os.unlink(name)
    return fd


def unpack(
    path: HostPath,
    fd: int,
    place: str,
    progress: Progress | None = None,
    *,
    more_room: str = OTHER_SCRATCH,
    wanted: Callable[[int], bool] | None = None,
) -> int:
    """Write the content of ``path`` sparsely to an empty file and return its size in bytes.

    ``place`` names where that file is, for messages, and ``more_room`` what to do where it is
    full. ``wanted`` is asked by offset what of it to write, CHUNK bytes at a time, and then has to
    look after the room. Raises as unpack_for_reading() does, and leaves what was written.
    """
    total = os.stat(path).st_size
    position = 0
    try:
        with ForwardStream(path) as stream:
            while True:
                stream.allow(CHUNK)
                chunk = stream.read(CHUNK)
                if not chunk:
                    break
                _refuse_endless(path, position + len(chunk))
                if wanted is None:
                    _check_room(fd, path, place, more_room)
                if wanted is None or wanted(position):
                    _write_sparse(fd, chunk, position)
                position += len(chunk)
                if progress is not None:
                    progress(stream.consumed, total)
        os.ftruncate(fd, position)
    except DamagedArchive as error:
        raise DamagedImage(error.message, "fetch or pack it again") from error
    except OSError as error:
        raise ImageError(f"Cannot unpack {path} in {place}: {error.strerror}", more_room) from error
    return position


def _refuse_endless(path: HostPath, size: int) -> None:
    if size > SIZE_LIMIT:
        raise DamagedImage(f"{path} unpacks to more than {SIZE_LIMIT >> 40} TiB")


def _check_room(fd: int, path: HostPath, place: str, more_room: str) -> None:
    if room.free_room(fd) < room.RESERVE:
        raise ImageError(
            f"Cannot unpack {path}: {place} has less than {room.RESERVE >> 20} MiB left", more_room
        )


def _write_sparse(fd: int, chunk: bytes, position: int) -> None:
    """Write the blocks of a chunk that are not zeros, neighbours in one go."""
    if chunk == _ZERO_CHUNK:
        return
    view = memoryview(chunk)
    start = 0
    while start < len(chunk):
        end = start
        while end < len(chunk) and any_data(view[end : end + BLOCK]):
            end += BLOCK
        if end > start:
            _write_all(fd, view[start : min(end, len(chunk))], position + start)
        start = max(end, start + BLOCK)


_ZEROS = bytes(BLOCK)


def any_data(block: memoryview) -> bool:
    """Tell whether a block of at most BLOCK bytes has a byte that is not zero."""
    return block != _ZEROS[: len(block)]


def _write_all(fd: int, data: memoryview, position: int) -> None:
    while data:
        written = os.pwrite(fd, data, position)
        data, position = data[written:], position + written
