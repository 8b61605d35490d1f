"""Moving blocks between an image and a device: reading ahead, checksums, comparing afterwards.

Blocks are checked with the checksum of the range they are in, as it stands before and after each
of them: so one pass of hashing serves the block map's checksum of the whole range and finds the
one bad block in it.
"""

from __future__ import annotations

import hashlib
import mmap
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from xbuild.errors import DamagedImage
from xbuild.image.bmap import MappedRange
from xbuild.image.content import Content
from xbuild.image.extents import Extent
from xbuild.image.target import OpenTarget
from xbuild.record import Record

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK = 4 << 20
_AHEAD = 3  # blocks read and hashed before they are needed
_READERS = 3

Fill = Callable[["Chunk", memoryview], "Chunk | None"]
"""Fills a buffer, which may be longer than the block by its padding."""


class Chunk(Record):
    """A block of at most CHUNK bytes within the range that begins at ``range_start``.

    ``before`` is the checksum's state at its beginning, ``digest`` the value at its end; both are
    None until the block was read. ``expected`` is the map's word for the range, if it ends here.
    """

    extent: Extent
    algorithm: str
    before: _Hash | None = None
    digest: bytes = b""
    expected: str = ""
    is_first: bool = False


def cut(
    ranges: tuple[MappedRange, ...], algorithm: str, bounds: tuple[int, ...]
) -> Iterator[Chunk]:
    """Cut ranges into blocks, at multiples of CHUNK and at each offset in ``bounds``."""
    for mapped in ranges:
        position, end = mapped.extent.offset, mapped.extent.end
        while position < end:
            stop = min([(position // CHUNK + 1) * CHUNK, end, *(b for b in bounds if b > position)])
            yield Chunk(
                Extent(position, stop - position),
                algorithm,
                expected=mapped.checksum if stop == end else "",
                is_first=position == mapped.extent.offset,
            )
            position = stop


class ChecksummingReader:
    """Reads blocks of an image in order, carrying the checksum of the range along."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._hash: _Hash | None = None

    def __call__(self, chunk: Chunk, buffer: memoryview) -> Chunk | None:
        """Fill ``buffer``; return what was read, None behind the end of an endless range.

        Raises DamagedImage where the content is not what the block map says.
        """
        buffer = buffer[: chunk.extent.length]
        if chunk.is_first or self._hash is None:
            self._hash = hashlib.new(chunk.algorithm)
        before = self._hash.copy()
        count = self._content.read(buffer, chunk.extent.offset)
        if count < len(buffer) and self._content.size is not None:
            raise DamagedImage(
                f"{self._content.image.label} ends at byte {chunk.extent.offset + count}",
                "it is cut off: fetch or copy it again",
            )
        if count == 0:
            return None
        self._hash.update(buffer[:count])
        if chunk.expected and self._hash.hexdigest() != chunk.expected:
            raise DamagedImage(
                f"{self._content.image.label} is not what its block map says, "
                f"before byte {chunk.extent.end}",
                "one of the two is damaged or stale: fetch both again; if the image was changed on"
                " purpose: xbuild image pack",
            )
        extent = Extent(chunk.extent.offset, count)
        return Chunk(extent, chunk.algorithm, before, self._hash.digest())


def reread(content: Content) -> Fill:
    """Return what reads known blocks of an image again, refusing what is no longer the same."""

    def fill(chunk: Chunk, buffer: memoryview) -> Chunk:
        content.read(buffer[: chunk.extent.length], chunk.extent.offset)
        if not matches(chunk, buffer):
            raise DamagedImage(f"{content.image.label} is no longer what it was a moment ago")
        return chunk

    return fill


def compare(
    target: OpenTarget, chunks: Sequence[Chunk]
) -> Generator[tuple[Chunk, bool], None, None]:
    """Read blocks back and yield, in order, whether each is what was read from the image.

    By several threads: a device reads ahead only when it is asked for more than one thing.
    """
    buffers: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()
    for _ in range(_READERS):
        buffers.put(mmap.mmap(-1, CHUNK))

    def check(chunk: Chunk) -> bool:
        buffer = buffers.get()
        try:
            with memoryview(buffer) as whole:
                return _is_kept(target, chunk, whole)
        finally:
            buffers.put(buffer)

    pool = ThreadPoolExecutor(_READERS, "read-back")
    try:
        yield from zip(chunks, pool.map(check, chunks), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _is_kept(target: OpenTarget, chunk: Chunk, buffer: memoryview) -> bool:
    offset, length = chunk.extent.offset, padded(chunk.extent.length, target.unit)
    if offset + length > target.device.size:
        target.stop_direct()
        length = chunk.extent.length
    target.read(buffer[:length], offset)
    return matches(chunk, buffer)


def matches(chunk: Chunk, data: memoryview) -> bool:
    """Tell whether ``data`` is what the block was when it was read from the image."""
    assert chunk.before is not None
    found = chunk.before.copy()
    found.update(data[: chunk.extent.length])
    return found.digest() == chunk.digest


def padded(length: int, unit: int) -> int:
    """Return ``length`` rounded up to whole units."""
    return -(-length // unit) * unit


class ReadAhead:
    """Fills buffers in a thread while the caller works on those filled before.

    Iterating yields (block, bytes); the bytes are valid until the next one is asked for. They are
    padded with zeros to whole units. What ``fill`` raises is raised here.
    """

    def __init__(self, chunks: Iterator[Chunk], fill: Fill, *, unit: int) -> None:
        self._chunks = chunks
        self._fill = fill
        self._unit = unit
        self._free: queue.SimpleQueue[mmap.mmap | None] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[Chunk, mmap.mmap] | BaseException | None] = (
            queue.SimpleQueue()
        )

    def __iter__(self) -> Iterator[tuple[Chunk, memoryview]]:
        for _ in range(_AHEAD):
            self._free.put(mmap.mmap(-1, CHUNK))  # page-aligned, as O_DIRECT wants it
        thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        thread.start()
        try:
            while (item := self._full.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                chunk, buffer = item
                with memoryview(buffer) as whole:
                    yield chunk, whole[: padded(chunk.extent.length, self._unit)]
                self._free.put(buffer)
        finally:
            self._free.put(None)
            thread.join()

    def _run(self) -> None:
        try:
            self._produce()
        except BaseException as error:
            self._full.put(error)
            return
        self._full.put(None)

    def _produce(self) -> None:
        for chunk in self._chunks:
            buffer = self._free.get()
            if buffer is None:
                return
            length = padded(chunk.extent.length, self._unit)
            with memoryview(buffer) as whole:
                if length > chunk.extent.length:
                    whole[chunk.extent.length : length] = bytes(length - chunk.extent.length)
                done = self._fill(chunk, whole[:length])
                if done is None:
                    return
            self._full.put((done, buffer))
