"""Writing an image to a card, so that a card that looks bootable is complete.

What is on the device goes first, then all but its first and last MiB is written, flushed, read
back and compared; then those two, where partition tables and boot loaders are. Only blocks that
the block map or the image's holes do not exempt are written.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from typing import Literal

from xbuild.errors import DamagedImage, DeviceFailed, DeviceRefused, ImageError
from xbuild.image.content import Content
from xbuild.image.device import Device, describe_content, read_device
from xbuild.image.extents import Extent, total_length
from xbuild.image.file import ImageFile
from xbuild.image.lock import lock_image
from xbuild.image.occupation import read_occupation
from xbuild.image.table import table_of
from xbuild.image.target import OpenTarget, refuse_same, refuse_too_small, refuse_unfit
from xbuild.image.transfer import (
    CHUNK,
    ChecksummingReader,
    Chunk,
    Fill,
    ReadAhead,
    compare,
    cut,
    reread,
)
from xbuild.record import HostPath, Record

HEAD = 1 << 20  # bytes at either end that are written last
TABLE = 4096  # no sector is larger: the MBR and the GPT's header are below it
_WINDOW = 64 << 20  # bytes between flushes, so that progress is that of the medium

Phase = Literal["wipe", "write", "verify", "rewrite", "finish"]


class Progress(Record):
    """How far a phase is, in bytes; ``total`` is None for a compressed image of unknown size."""

    phase: Phase
    done: int
    total: int | None


class Proposal(Record):
    """What would be written where. ``size`` and ``mapped`` are bytes, None where unknown."""

    image: HostPath
    device: Device
    size: int | None
    mapped: int | None
    content: tuple[str, ...]


class Flashed(Record):
    """What was done, in bytes; ``rewritten`` names what had to be written twice."""

    written: int
    verified: int
    rewritten: tuple[Extent, ...]


def propose_flash(image: HostPath, path: HostPath, *, force: bool = False) -> Proposal:
    """Look at both and refuse what should not be done; nothing is written.

    Raises DeviceRefused, ImageError and what reading an image raises.
    """
    device = read_device(path)
    with ImageFile(image) as file, Content(file) as content:
        refuse_unfit(device, read_occupation(device), force=force)
        refuse_same(file, device)
        if content.compression is None:
            refuse_bad_table(file)
        mapped = None
        if content.size is not None:
            refuse_too_small(device, content.size)
            mapped = total_length(r.extent for r in content.ranges())
        return Proposal(image, device, content.size, mapped, describe_content(device))


def refuse_bad_table(image: ImageFile) -> None:
    """Raise DamagedImage for a table that contradicts itself or the image: it would not boot."""
    try:
        table_of(image)
    except DamagedImage:
        raise
    except ImageError:
        return  # one that is for other sectors or other programs, or none that can be read here


def flash_image(
    proposal: Proposal,
    *,
    verify: bool = True,
    report: Callable[[Progress], None] | None = None,
) -> Flashed:
    """Write what was proposed, and check it. The device is opened O_EXCL and looked at again.

    Whatever goes wrong, the device does not look bootable. Raises DeviceRefused, DeviceFailed,
    DamagedImage, ImageBusy; KeyboardInterrupt passes through.
    """
    with (
        lock_image(proposal.image, exclusive=False),
        ImageFile(proposal.image) as file,
        Content(file) as content,
        OpenTarget(proposal.device) as target,
    ):
        return _Flash(content, target, report or (lambda _progress: None)).run(verify=verify)


class _Flash:
    """One writing of one image to one device, step by step."""

    def __init__(
        self, content: Content, target: OpenTarget, report: Callable[[Progress], None]
    ) -> None:
        self._content = content
        self._target = target
        self._report = report
        self._held: list[tuple[Chunk, bytes]] = []
        self._written: list[Chunk] = []
        self._rewritten: list[Extent] = []
        self._done = 0
        size = target.device.size
        last = max(size - HEAD, 0) // TABLE * TABLE
        self._ends = (Extent(0, min(HEAD, size)), Extent(last, size - last))

    def run(self, *, verify: bool) -> Flashed:
        self._report(Progress("wipe", 0, total_length(self._ends)))
        self._wipe()
        self._write()
        self._target.flush()
        self._target.require_same()
        self._content.finish()
        self._refuse_cut_off()
        if verify:
            self._verify(self._written)
        self._finish(verify=verify)
        self._target.reread_table()
        total = total_length(c.extent for c in self._all())
        return Flashed(total, total if verify else 0, tuple(self._rewritten))

    def _refuse_cut_off(self) -> None:
        """Compare what a stream says of itself with how long it was. Raises DamagedImage."""
        if self._content.compression is None:
            return
        with tempfile.TemporaryFile() as file:
            for chunk, data in self._held:
                os.pwrite(file.fileno(), data, chunk.extent.offset)
            file.truncate(self._content.size or self._done)
            path = HostPath(f"/proc/self/fd/{file.fileno()}")
            with ImageFile(path, label=self._content.image.label) as ends:
                refuse_bad_table(ends)

    def _finish(self, *, verify: bool) -> None:
        """Write the ends; whatever then goes wrong, they do not stay."""
        try:
            self._write_ends()
            if verify:
                self._verify([chunk for chunk, _ in self._held], phase="finish")
            self._target.require_same()
        except BaseException:
            with suppress(DeviceFailed):
                self._wipe()
            raise

    def _all(self) -> list[Chunk]:
        return [*self._written, *(chunk for chunk, _ in self._held)]

    def _wipe(self) -> None:
        """Take away what makes the old content, or half of the new one, look whole."""
        zeros = _aligned(bytes(HEAD + TABLE))
        for end in self._ends:
            self._put(zeros[: end.length], end.offset)
        self._target.flush()

    def _write(self) -> None:
        ranges = self._content.ranges()
        size = self._content.size
        total = None if size is None else total_length(r.extent for r in ranges)
        algorithm = self._content.block_map.algorithm if self._content.block_map else "sha256"
        chunks = cut(ranges, algorithm, (self._ends[0].end, self._ends[1].offset))
        unflushed = 0
        self._report(Progress("write", 0, total))
        for chunk, data in self._ahead(chunks, ChecksummingReader(self._content)):
            self._refuse_beyond(chunk)
            if self._is_held(chunk):
                self._held.append((chunk, bytes(data)))
            else:
                self._put(data, chunk.extent.offset)
                self._written.append(chunk)
            self._done += chunk.extent.length
            unflushed += chunk.extent.length
            if unflushed >= _WINDOW:
                self._target.flush()
                unflushed = 0
            self._report(Progress("write", self._done, total))

    def _refuse_beyond(self, chunk: Chunk) -> None:
        if chunk.extent.end > self._target.device.size:
            raise DeviceRefused(
                f"{self._target.device.path} is too small: the image goes on behind its end",
                "it is not bootable now; use a larger one",
            )

    def _is_held(self, chunk: Chunk) -> bool:
        return any(
            chunk.extent.offset < end.end and end.offset < chunk.extent.end for end in self._ends
        )

    def _write_ends(self) -> None:
        """Write what was held back, the beginning with the table last of all."""
        self._held.sort(key=lambda held: held[0].extent.offset, reverse=True)
        for chunk, data in self._held:
            self._put_backwards(_aligned(data), chunk.extent.offset)

    def _put_backwards(self, data: memoryview, offset: int) -> None:
        """Write so that the first sectors, which tell of all others, are there last."""
        self._put(data[TABLE:], offset + TABLE)
        self._target.flush()
        self._put(data[:TABLE], offset)
        self._target.flush()

    def _put(self, data: memoryview, offset: int) -> None:
        size = self._target.device.size
        if offset + len(data) > size or (offset | len(data)) % self._target.unit:
            self._target.stop_direct()
            data = data[: size - offset]
        self._target.write(data, offset)

    def _verify(self, chunks: list[Chunk], phase: Phase = "verify") -> None:
        """Compare with what was read from the image; write what differs once more.

        Raises DeviceFailed naming the ranges that do not hold what was written.
        """
        bad = self._differing(chunks, phase)
        if not bad:
            return
        self._rewrite(bad)
        still = self._differing(bad, "rewrite")
        if still:
            ranges = ", ".join(f"{e.offset}-{e.end - 1}" for e in (c.extent for c in still))
            raise DeviceFailed(
                f"{self._target.device.path} does not keep what is written to it: bytes {ranges}, "
                "written twice, read back differently",
                "it is not bootable; the card or its reader is faulty, or counterfeit",
            )
        self._rewritten += [chunk.extent for chunk in bad]

    def _differing(self, chunks: list[Chunk], phase: Phase) -> list[Chunk]:
        self._target.forget_cache()
        total, done, bad = total_length(c.extent for c in chunks), 0, []
        self._report(Progress(phase, 0, total))
        with closing(compare(self._target, chunks)) as compared:
            for chunk, is_kept in compared:
                bad += [] if is_kept else [chunk]
                done += chunk.extent.length
                self._report(Progress(phase, done, total))
        return bad

    def _rewrite(self, bad: list[Chunk]) -> None:
        held = {chunk.extent.offset: data for chunk, data in self._held}
        again = [chunk for chunk in bad if chunk.extent.offset not in held]
        for chunk in bad:
            if chunk not in again:
                self._put(_aligned(held[chunk.extent.offset]), chunk.extent.offset)
        if again:
            self._content.restart()
            for chunk, data in self._ahead(iter(again), reread(self._content)):
                self._put(data, chunk.extent.offset)
        self._target.flush()

    def _ahead(self, chunks: Iterable[Chunk], fill: Fill) -> Iterator[tuple[Chunk, memoryview]]:
        return iter(ReadAhead(iter(chunks), fill, unit=self._target.unit))


def _aligned(data: bytes) -> memoryview:
    """Return ``data`` in memory that O_DIRECT accepts."""
    room = mmap.mmap(-1, CHUNK)
    room[: len(data)] = data
    return memoryview(room)[: len(data)]
