"""Packing an image to be handed on: what is unused left out, a block map, checksums, compression.

The result depends on the input's bytes and holes alone: no times, no names, no number of
processors. The input is only read, unless it is to be replaced.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Literal, Protocol

from xbuild.errors import ImageError, UnsupportedImage
from xbuild.image.bmap import BlockMap, MappedRange, format_bmap
from xbuild.image.compressed import raw_name, unpack_command
from xbuild.image.extents import Extent, total_length
from xbuild.image.file import ImageFile, copy_status, open_no_link
from xbuild.image.lock import lock_image
from xbuild.image.program import require_program
from xbuild.image.table import table_of
from xbuild.image.used import used_extents
from xbuild.record import HostPath, Record
from xbuild.sandbox.compressing import compress_command
from xbuild.tree.stream import compression_of

Compression = Literal["none", "xz", "zstd"]
SUFFIXES: dict[Compression, str] = {"none": "", "xz": ".xz", "zstd": ".zst"}
SUMS = "SHA256SUMS"
_STEP = 4 << 20

Report = Callable[[int, int], None]
"""Told how many bytes are done, and of how many."""


class Packed(Record):
    """What was made; sizes in bytes. ``notes`` say what was not trimmed, and why."""

    image: HostPath
    block_map: HostPath
    checksums: HostPath
    size: int
    mapped: int
    packed_size: int
    notes: tuple[str, ...]


class _Sink(Protocol):
    def put(self, data: memoryview, offset: int) -> None: ...
    def end(self, size: int) -> None: ...


def default_output(path: str, compression: Compression) -> HostPath:
    """Return where the packed image goes unless said otherwise: beside the image."""
    if compression != "none":
        return HostPath(path + SUFFIXES[compression])
    stem, suffix = os.path.splitext(path)
    return HostPath(f"{stem}-packed{suffix}")


def pack_image(
    path: HostPath,
    output: HostPath,
    *,
    compression: Compression = "none",
    overwrite: bool = False,
    report: Report | None = None,
) -> Packed:
    """Write a packed copy of an image, its block map and their checksums.

    With ``output`` the image itself, it is replaced once the copy is complete. Raises ImageError,
    ImageBusy, DamagedImage, ImageToolMissing; nothing is then left behind.
    """
    path, output = HostPath(os.path.realpath(path)), HostPath(os.path.realpath(output))
    is_in_place = path == output
    if is_in_place and compression != "none":
        raise ImageError("An image cannot be compressed in place", "give another name with -o")
    if not (overwrite or is_in_place) and os.path.lexists(output):
        raise ImageError(f"{output} is there already", "--force replaces it")
    with lock_image(path, exclusive=is_in_place), ImageFile(path) as image:
        _refuse_compressed(image)
        work = f"{os.path.dirname(output)}/.{os.path.basename(output)}.xbuild-pack"
        try:
            return _pack(image, output, HostPath(work), compression, report or _ignore)
        except OSError as error:
            hint = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            raise ImageError(f"Cannot write {output}: {error.strerror}", hint) from error
        finally:
            _remove(work)


def _ignore(_done: int, _total: int) -> None:
    return


def _refuse_compressed(image: ImageFile) -> None:
    kind = compression_of(image.pread(8, 0))
    if kind is not None:
        raise UnsupportedImage(
            f"{image.label} is compressed already ({kind})",
            f"unpack it first: {unpack_command(image.path, kind, raw_name(image.path))}",
        )


def _pack(
    image: ImageFile, output: HostPath, work: HostPath, compression: Compression, report: Report
) -> Packed:
    before = os.fstat(image.fd)
    used = used_extents(image, table_of(image))
    _remove(work)
    fd = os.open(work, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _mode_for(before))
    with open(fd, "r+b", buffering=0) as file:
        with _sink(file, compression) as sink:
            ranges = tuple(_copy(image, used.extents, sink, report))
            sink.end(image.size)
        os.fsync(file.fileno())
        packed_size = os.fstat(file.fileno()).st_size
        digest = _digest(file)
        _refuse_changed(image, before)
        if output == image.path:
            # By descriptor: whoever owns the directory may lay links in it meanwhile.
            copy_status(image.fd, file.fileno())
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
    text = format_bmap(BlockMap(image.size, "sha256", ranges))
    os.replace(work, output)
    map_path = HostPath(output.removesuffix(SUFFIXES[compression]) + ".bmap")
    _write(map_path, text)
    sums = HostPath(f"{os.path.dirname(output)}/{SUMS}")
    _add_sums(sums, {output: digest, map_path: hashlib.sha256(text).hexdigest()})
    mapped = total_length(used.extents)
    return Packed(output, map_path, sums, image.size, mapped, packed_size, used.notes)


def _mode_for(status: os.stat_result) -> int:
    return stat.S_IMODE(status.st_mode) & 0o666 | 0o600


def _copy(
    image: ImageFile, extents: tuple[Extent, ...], sink: _Sink, report: Report
) -> Iterator[MappedRange]:
    done, total = 0, total_length(extents)
    for extent in extents:
        checksum, position = hashlib.sha256(), extent.offset
        while position < extent.end:
            data = image.pread(min(_STEP, extent.end - position), position)
            if not data:
                raise ImageError(
                    f"{image.label} became shorter while it was read",
                    "somebody else writes to it: wait for that, and pack it again",
                )
            checksum.update(data)
            sink.put(memoryview(data), position)
            position += len(data)
            done += len(data)
            report(done, total)
        yield MappedRange(extent, checksum.hexdigest())


class _SparseFile:
    """Puts bytes where they belong; all else stays a hole."""

    def __init__(self, file: FileIO) -> None:
        self._fd = file.fileno()

    def put(self, data: memoryview, offset: int) -> None:
        while data:
            written = os.pwrite(self._fd, data, offset)
            data, offset = data[written:], offset + written

    def end(self, size: int) -> None:
        os.ftruncate(self._fd, size)


class _Stream:
    """Writes to a compressor's standard input, zeros for what is left out."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        self._pipe = process.stdin
        self._position = 0
        self._zeros = memoryview(bytes(_STEP))

    def put(self, data: memoryview, offset: int) -> None:
        self.end(offset)
        self._pipe.write(data)
        self._position += len(data)

    def end(self, size: int) -> None:
        while self._position < size:
            step = min(_STEP, size - self._position)
            self._pipe.write(self._zeros[:step])
            self._position += step


@contextmanager
def _sink(file: FileIO, compression: Compression) -> Iterator[_Sink]:
    """Open a way for bytes into ``file``; what a compressor complains of is raised at the end."""
    if compression == "none":
        yield _SparseFile(file)
        return
    program, *arguments = compress_command(compression)
    command = [require_program(program, "compress the image"), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE)
    try:
        yield _Stream(process)
    except BrokenPipeError:
        pass  # it ended before us, and says why
    except BaseException:
        process.kill()
        process.communicate()
        raise
    _, complaint = process.communicate()
    if process.returncode:
        reason = complaint.decode("utf-8", "replace").strip()
        raise ImageError(
            f"Cannot compress the image: {reason or compression + ' failed'}",
            f"make room, and see that {compression} is installed",
        )


def _digest(file: FileIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_changed(image: ImageFile, before: os.stat_result) -> None:
    now = os.fstat(image.fd)
    if (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size):
        raise ImageError(
            f"{image.label} was changed by another program while it was read", "pack it again"
        )


def _add_sums(path: HostPath, sums: dict[HostPath, str]) -> None:
    """Put checksums into a file as sha256sum(1) writes it, in place of those of the same names."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", opener=open_no_link) as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        lines = []
    entries = {line[line.find("  ") + 2 :]: line for line in lines if "  " in line}
    for name, digest in sums.items():
        base = os.path.basename(name)
        entries[base] = f"{digest}  {base}"
    text = "".join(f"{entries[name]}\n" for name in sorted(entries))
    _write(path, text.encode("utf-8", "surrogateescape"))


def _write(path: HostPath, data: bytes) -> None:
    """Replace a file by one with this content, whole or not at all."""
    work = f"{os.path.dirname(path)}/.{os.path.basename(path)}.xbuild-pack"
    _remove(work)
    try:
        with open(work, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(work, path)
    finally:
        _remove(work)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
