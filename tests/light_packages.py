"""Debian's packages without what no test reads, and not compressed (deb(5)).

Under emulation, dpkg takes longer to decompress and to write documents and translations than for
all else that it does. Programs, libraries and scripts are as they were.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator

from xbuild.record import HostPath

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60
_LEFT_OUT = tuple(f"./usr/share/{name}/" for name in ("doc", "info", "locale", "man"))


def lighten(debs: tuple[HostPath, ...], directory: HostPath) -> tuple[str, ...]:
    """Return such copies of packages, kept in ``directory`` under their names."""
    os.makedirs(directory, exist_ok=True)
    return tuple(_lighter(deb, f"{directory}/{os.path.basename(deb)}") for deb in debs)


def _lighter(deb: HostPath, target: str) -> str:
    if not os.path.exists(target):
        with open(deb, "rb") as file:
            content = file.read()
        with open(f"{target}.part", "wb") as file:
            file.write(_MAGIC)
            for name, member in _members(content):
                stem = name.partition(".tar")[0]
                is_tar = stem in ("control", "data")
                _write(
                    file, f"{stem}.tar" if is_tar else name, _plain(member) if is_tar else member
                )
        os.rename(f"{target}.part", target)
    return target


def _members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what an archive of ar(5) has, by names."""
    assert archive.startswith(_MAGIC)
    place = len(_MAGIC)
    while place < len(archive):
        header = archive[place : place + _HEADER_BYTES]
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        place += _HEADER_BYTES
        yield name, archive[place : place + size]
        place += size + size % 2


def _write(file: io.BufferedWriter, name: str, content: bytes) -> None:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
    file.write(header.encode() + content + b"\n" * (len(content) % 2))


def _plain(compressed: bytes) -> bytes:
    made = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(compressed)) as old,
        tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as new,
    ):
        for member in old:
            if not f"{member.name}/".startswith(_LEFT_OUT) or member.isdir():
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    return made.getvalue()
