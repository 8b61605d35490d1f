"""The members of a tar archive one after another, in bounded memory, from a forward stream.

The archive is not trusted: how long a header may be is limited. Format: tar(5), read by tarfile.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from xbuild.errors import DamagedArchive, UnknownFormat
from xbuild.tree.looks import LOOKS_BYTES, looks_like
from xbuild.tree.stream import ForwardStream, compression_of

BLOCK = 512
_PEEK_BYTES = 1 << 20
_HEADER_LIMIT = 1 << 20  # bytes of one member's headers; extended attributes make them long


def is_archive(header: bytes) -> bool:
    """Tell whether a file that begins with ``header`` is tar, or compressed by a known method."""
    return compression_of(header) is not None or is_tar(header)


def is_tar(header: bytes) -> bool:
    """Tell whether ``header`` begins with a tar header, by its checksum."""
    try:
        tarfile.TarInfo.frombuf(header[:BLOCK], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def refuse_other_content(stream: ForwardStream) -> None:
    """Raise UnknownFormat, saying what it is, for what does not begin as an archive does."""
    # A block of bzip2's: only at its end it is known to be damaged.
    header = stream.peek(_PEEK_BYTES if stream.compression else LOOKS_BYTES)[:LOOKS_BYTES]
    if not is_tar(header) and header[:BLOCK] != bytes(BLOCK):
        name, hint = looks_like(header)
        packed = f"compressed with {stream.compression}, " if stream.compression else ""
        raise UnknownFormat(f"{stream.label} is {name}, {packed}not an archive of a tree", hint)


def read_members(stream: ForwardStream) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Yield each member, its header just read, and the position at which its content ends.

    What of the content the caller leaves is passed over. Raises DamagedArchive, TargetError.
    """
    stream.allow(_HEADER_LIMIT)
    try:
        with tarfile.TarFile(
            mode="r",
            fileobj=stream,  # type: ignore[arg-type]  # tarfile's type wants mode and name too
            encoding="utf-8",
            errors="surrogateescape",
        ) as archive:
            while (member := archive.next()) is not None:
                yield member, archive.offset
                stream.seek(archive.offset)
                stream.allow(_HEADER_LIMIT)
                # tarfile remembers all that it met, without bound.
                archive.members.clear()  # type: ignore[attr-defined]
                archive.pax_headers.clear()  # type: ignore[attr-defined]
    # tarfile lets some of what it parses raise as it is: numbers, nested headers.
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise DamagedArchive(f"{stream.label} is damaged: {error}") from error
    _refuse_early_end(stream)


def _refuse_early_end(stream: ForwardStream) -> None:
    """Tarfile takes a missing end and a garbled header alike for the end."""
    if len(stream.last_read) < BLOCK:
        raise stream.cut_off()
    if stream.last_read.strip(b"\0"):
        raise DamagedArchive(
            f"{stream.label} is damaged: no header at byte {stream.tell() - BLOCK}",
            "fetch or pack it again",
        )
