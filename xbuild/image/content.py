"""An image's content for writing it elsewhere: raw, or through a decompressor, front to back.

Which bytes matter comes from a block map (IMAGE.bmap), else from the holes of a raw image; of a
compressed one without a map all bytes matter.
"""

from __future__ import annotations

import os
import re
from typing import Self

from xbuild.errors import DamagedImage
from xbuild.image.bmap import BlockMap, MappedRange, parse_bmap
from xbuild.image.compressed import SUFFIXES
from xbuild.image.extents import Extent, data_extents
from xbuild.image.file import ImageFile
from xbuild.image.program import run_program
from xbuild.image.recognise import RECOGNISE_BYTES, refuse_foreign
from xbuild.image.running import Running
from xbuild.record import HostPath
from xbuild.tree.stream import compression_of

_DECOMPRESS = {
    "gzip": ("gzip", "-dc"),
    "bzip2": ("bzip2", "-dc"),
    "xz": ("xz", "-dc", "-T0"),
    "lzma": ("xz", "-dc"),
    "zstd": ("zstd", "-dc", "--long=31"),
}
_SKIP = 1 << 20
_UNBOUNDED = 1 << 62


class Content:
    """What an image holds. ``size`` is in bytes, None where only reading to the end tells.

    Read at ascending offsets; restart() goes back to the beginning. Owns a decompressor, not the
    image.
    """

    def __init__(self, image: ImageFile) -> None:
        """Look what the image is. Raises UnsupportedImage, DamagedImage, ImageToolMissing."""
        header = image.pread(RECOGNISE_BYTES, 0)
        refuse_foreign(header, HostPath(image.label))
        self.image = image
        self.compression = compression_of(header)
        self._process: Running | None = None
        self._position = 0
        self.block_map = find_map(image)
        self.size = self._measure()
        if self.compression is None and self.size is not None and self.size != image.size:
            raise DamagedImage(
                f"{image.label} has {image.size} bytes, its block map is for {self.size}",
                "make the map again, or remove it",
            )
        self._before = os.fstat(image.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.restart()

    def ranges(self) -> tuple[MappedRange, ...]:
        """Return what has to be written, in order. Without a known size the last one is endless."""
        if self.block_map is not None:
            return self.block_map.ranges
        if self.compression is None:
            extents = data_extents(self.image.fd, 0, self.image.size)
            return tuple(MappedRange(extent) for extent in extents)
        return (MappedRange(Extent(0, self.size or _UNBOUNDED)),)

    def read(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` from ``offset``; return how much there was, less only at the end.

        Raises DamagedImage, ImageError.
        """
        if self.compression is None:
            return self._read_file(buffer, offset)
        self._skip_to(offset)
        return self._read_stream(buffer)

    def restart(self) -> None:
        """Go back to the beginning, ending the decompressor without its having to succeed."""
        process, self._process, self._position = self._process, None, 0
        if process is not None:
            process.close()

    def finish(self) -> None:
        """Read what is left, so that the compression's own checksum is verified.

        Raises DamagedImage, also for an image that another program changed meanwhile.
        """
        if self.compression is not None and self._process is not None:
            scrap = memoryview(bytearray(_SKIP))
            while self._read_stream(scrap) == _SKIP:
                pass
            if self.size is not None and self._position != self.size:
                raise DamagedImage(
                    f"{self.image.label} unpacks to {self._position} bytes, not to {self.size}"
                )
        self.require_unchanged()

    def require_unchanged(self) -> None:
        """Raise DamagedImage if the image file was written to since it was opened."""
        now = os.fstat(self.image.fd)
        if (now.st_size, now.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise DamagedImage(
                f"{self.image.label} was changed by another program while it was read",
                "find out who writes to it, then do this again",
            )

    def _measure(self) -> int | None:
        if self.block_map is not None:
            return self.block_map.image_size
        if self.compression is None:
            return self.image.size
        return _unpacked_size(self.image) if self.compression == "xz" else None

    def _read_file(self, buffer: memoryview, offset: int) -> int:
        filled = 0
        while filled < len(buffer):
            try:
                count = os.preadv(self.image.fd, [buffer[filled:]], offset + filled)
            except OSError as error:
                raise DamagedImage(
                    f"Cannot read {self.image.label} at byte {offset + filled}: {error.strerror}"
                ) from error
            if count == 0:
                self.require_unchanged()
                break
            filled += count
        return filled

    def _skip_to(self, offset: int) -> None:
        scrap = memoryview(bytearray(_SKIP))
        while self._position < offset:
            step = min(_SKIP, offset - self._position)
            if self._read_stream(scrap[:step]) < step:
                return

    def _read_stream(self, buffer: memoryview) -> int:
        if self._process is None:
            self._process = self._decompressor()
        stream = self._process.stdout
        filled = 0
        while filled < len(buffer):
            count = stream.readinto(buffer[filled:])
            if not count:
                self._require_success()
                break
            filled += count
        self._position += filled
        return filled

    def _decompressor(self) -> Running:
        name, *options = _DECOMPRESS[self.compression or ""]
        source = os.open(self.image.argument, os.O_RDONLY | os.O_CLOEXEC)
        purpose = f"unpack {self.image.label}"
        try:
            return Running(name, options, source, purpose=purpose, label=self.image.label)
        finally:
            os.close(source)

    def _require_success(self) -> None:
        assert self._process is not None
        if self._process.wait() != 0:
            raise DamagedImage(
                f"{self.image.label} is damaged or cut off ({self.compression})", "fetch it again"
            )


def _unpacked_size(image: ImageFile) -> int | None:
    """Ask xz, whose index at the end has it; the other formats do not know it reliably."""
    output = run_program(
        "xz",
        ["--robot", "--list", "--", image.argument],
        image=image,
        purpose=f"look into {image.label}",
    )
    match = re.search(rb"^totals\t\d+\t\d+\t\d+\t(\d+)\t", output.stdout, re.MULTILINE)
    return int(match[1]) if match else None


def map_paths(image: str) -> tuple[HostPath, ...]:
    """Return where the block map of an image may be, as bmaptool looks for it."""
    names = [image]
    while names[-1].endswith(SUFFIXES):
        names.append(os.path.splitext(names[-1])[0])
    stems = [os.path.splitext(name)[0] for name in names[-1:]]
    return tuple(HostPath(f"{name}.bmap") for name in (*names, *stems))


def find_map(image: ImageFile) -> BlockMap | None:
    """Return the block map beside an image, None where there is none. Raises DamagedImage."""
    for path in map_paths(image.label):
        try:
            with open(path, "rb") as file:
                return parse_bmap(file.read((64 << 20) + 1), path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DamagedImage(
                f"Cannot read {path}: {error.strerror}", "or move it away"
            ) from error
    return None
