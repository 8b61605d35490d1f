"""An archive's bytes as a forward stream: decompressed in bounded memory, never sought back.

Knows compression formats and nothing of tar.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from xbuild.errors import DamagedArchive, TargetError
from xbuild.record import HostPath
from xbuild.tree.resolve import target_error

if TYPE_CHECKING:
    import zstandard

_CHUNK = 64 * 1024
# A dictionary beyond these is for archives of many gigabytes; xz -9 needs 65 MiB, zstd -22 128.
_TRAILER_LIMIT = 1 << 20
_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW_LOG = 27
_ZSTD_CHUNK = 1024  # zstandard returns all that its input makes: 4 bytes can be a block of 128 KiB

_MAGICS = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x5d\0\0": "lzma",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
}


class Source(Protocol):
    """Bytes one after another; b"" at the end."""

    def read(self, size: int, /) -> bytes: ...  # noqa: D102


class Decoder(Protocol):
    """The incremental decompressors of bz2, lzma and compression.zstd."""

    @property
    def eof(self) -> bool: ...  # noqa: D102
    @property
    def needs_input(self) -> bool: ...  # noqa: D102
    @property
    def unused_data(self) -> bytes: ...  # noqa: D102
    def decompress(self, data: bytes, /, max_length: int = ...) -> bytes: ...  # noqa: D102


def compression_of(header: bytes) -> str | None:
    """Return the name of the compression that a file begins with, None for another content."""
    for magic, name in _MAGICS.items():
        if header.startswith(magic):
            return name
    return None


class ForwardStream:
    """What tarfile reads an archive from. Owns the file until close().

    ``read`` returns less than was asked for only at the end. Damage raises DamagedArchive.
    """

    def __init__(self, path: HostPath, label: str = "") -> None:
        """Open ``path``, decompressing it if its content is compressed. Raises TargetError.

        ``label`` is what people call it, where its path says nothing to them.
        """
        self.label = label or path
        self.last_read = b""
        self._position = 0
        self._allowed = 0
        self._ahead = b""
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
            self.compression = compression_of(self._file.read(8))
            self._file.seek(0)
            self._length = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise target_error(self.label, error) from error
        self._source, self._damage = _decompressed(self._file, self.compression)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def peek(self, size: int) -> bytes:
        """Return the first bytes without passing them; only at the beginning."""
        self._ahead = self._pull(size)
        return self._ahead

    def tell(self) -> int:
        """Return how many bytes were passed."""
        return self._position

    @property
    def consumed(self) -> int:
        """Return how many bytes of the file itself were read so far, for progress."""
        return self._file.tell()

    def allow(self, size: int) -> None:
        """Let read() return at most ``size`` bytes in total until the next call.

        A header declares how long it is, and tarfile believes it and holds it in memory.
        """
        self._allowed = size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes. Raises DamagedArchive beyond what allow() granted."""
        if not 0 <= size <= self._allowed:
            raise DamagedArchive(
                f"{self.label} is damaged: one of its headers is {size} bytes long"
            )
        self._allowed -= size
        self.last_read = self._pull(size)
        self._position += len(self.last_read)
        return self.last_read

    def seek(self, position: int) -> None:
        """Pass on to ``position``, which must not be behind. Raises DamagedArchive."""
        if position < self._position:
            raise DamagedArchive(f"{self.label} is damaged: it leads back to byte {position}")
        if self.compression is None and position > self._position:
            self._skip_in_file(position)
        while self._position < position:
            part = self._pull(min(position - self._position, _CHUNK))
            if not part:
                raise self.cut_off()
            self._position += len(part)

    def finish(self) -> None:
        """Let the compression verify its checksum at the end, unless much follows the archive."""
        left = _TRAILER_LIMIT
        while self.compression is not None and left > 0 and (part := self._pull(_CHUNK)):
            left -= len(part)

    def cut_off(self) -> DamagedArchive:
        """Return the error for an archive that ends too early."""
        return DamagedArchive(
            f"{self.label} is cut off after {self._position} bytes of its content",
            "fetch or pack it again",
        )

    def _skip_in_file(self, position: int) -> None:
        if position > self._length:
            self._position = self._length
            raise self.cut_off()
        self._ahead = b""
        self._file.seek(position)
        self._position = position

    def _pull(self, size: int) -> bytes:
        parts = [self._ahead[:size]]
        self._ahead = self._ahead[size:]
        missing = size - len(parts[0])
        while missing > 0:
            part = self._decode(missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _decode(self, size: int) -> bytes:
        try:
            return self._source.read(size)
        except EOFError as error:
            raise self.cut_off() from error
        except self._damage as error:
            raise DamagedArchive(
                f"{self.label} is damaged: {self.compression} says {error}",
                "fetch or pack it again",
            ) from error
        except OSError as error:
            raise target_error(self.label, error) from error


class _Frames:
    """The content of compressed frames one after another, as xz and pbzip2 write them."""

    def __init__(
        self, file: BinaryIO, new_decoder: Callable[[], Decoder], *, chunk: int = _CHUNK
    ) -> None:
        self._file = file
        self._chunk = chunk
        self._new_decoder = new_decoder
        self._decoder: Decoder | None = None
        self._spare = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end. Raises EOFError when that is too early."""
        while True:
            if self._decoder is None and not self._begin_frame():
                return b""
            assert self._decoder is not None
            part = self._decoder.decompress(self._input(self._decoder), max_length=size)
            if self._decoder.eof:
                self._spare = self._decoder.unused_data
                self._decoder = None
            if part:
                return part

    def _begin_frame(self) -> bool:
        while self._spare or (spare := self._file.read(self._chunk)):
            self._spare = (self._spare or spare).lstrip(b"\0")  # xz pads streams with zeros
            if self._spare:
                self._decoder = self._new_decoder()
                return True
        return False

    def _input(self, decoder: Decoder) -> bytes:
        if not decoder.needs_input:
            return b""
        data = self._spare or self._file.read(self._chunk)
        self._spare = b""
        if not data:
            raise EOFError
        return data


def _decompressed(
    file: BinaryIO, compression: str | None
) -> tuple[Source, tuple[type[Exception], ...]]:
    """Return the content of ``file`` and what it raises when that is damaged."""
    match compression:
        case None:
            return file, ()
        case "gzip":
            return gzip.GzipFile(fileobj=file), (gzip.BadGzipFile, zlib.error)
        case "bzip2":
            return _Frames(file, bz2.BZ2Decompressor), (OSError, ValueError)
        case "zstd":
            return _zstd(file)
        case _:
            return _Frames(file, _new_lzma_decoder), (lzma.LZMAError,)


def _new_lzma_decoder() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=_XZ_MEMORY)


def _zstd(file: BinaryIO) -> tuple[Source, tuple[type[Exception], ...]]:
    """Use the standard library's zstd (Python 3.14), else the module zstandard."""
    try:
        from compression import zstd  # type: ignore[import-not-found]  # not in 3.11
    except ImportError:
        return _zstandard(file)
    limit = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return _Frames(file, lambda: zstd.ZstdDecompressor(options=limit)), (zstd.ZstdError,)


def _zstandard(file: BinaryIO) -> tuple[Source, tuple[type[Exception], ...]]:
    try:
        import zstandard
    except ImportError as error:
        raise TargetError(
            f"Cannot read {file.name}: no zstd decompressor is installed",
            "python3 -m pip install zstandard",
        ) from error
    frames = zstandard.ZstdDecompressor(max_window_size=1 << _ZSTD_WINDOW_LOG)
    source = _Frames(file, lambda: _ZstandardFrame(frames), chunk=_ZSTD_CHUNK)
    return source, (zstandard.ZstdError,)


class _ZstandardFrame:
    """One frame by the module zstandard, as the standard library's decompressors do it.

    Its own stream_reader takes a frame that is cut off for one that ends.
    """

    def __init__(self, frames: zstandard.ZstdDecompressor) -> None:
        self._frame = frames.decompressobj()
        self._ready = io.BytesIO()
        self._left = 0

    @property
    def eof(self) -> bool:
        return self._left == 0 and self._frame.eof

    @property
    def needs_input(self) -> bool:
        return self._left == 0

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes:
        if data:
            content = self._frame.decompress(data)
            self._ready, self._left = io.BytesIO(content), len(content)
        part = self._ready.read(max_length)
        self._left -= len(part)
        return part
