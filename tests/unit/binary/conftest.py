"""ELF files made by hand: a header, segments and sections, of any architecture."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import pytest

from xbuild.binary.elf import ET_EXEC

Chunk = tuple[int, bytes]  # p_type or sh_type, and what it holds
ElfMaker = Callable[..., bytes]


def make_elf(
    *,
    machine: int = 62,
    bits: int = 64,
    order: str = "little",
    elf_type: int = ET_EXEC,
    flags: int = 0,
    segments: Sequence[Chunk] = (),
    sections: Sequence[Chunk] = (),
) -> bytes:
    """Header, program headers, the chunks' bytes, and section headers if there are sections."""
    mark = "<" if order == "little" else ">"
    ehdr_size, phdr_size, shdr_size = (52, 32, 40) if bits == 32 else (64, 56, 64)
    word = "I" if bits == 32 else "Q"
    headers, section_headers, body = b"", b"", b""
    start = ehdr_size + phdr_size * len(segments)
    for kind, data in segments:
        offset, size = start + len(body), len(data)
        values = (offset, offset, offset, size, size)
        if bits == 32:
            headers += struct.pack(mark + "8I", kind, *values, 5, 4)
        else:
            headers += struct.pack(mark + "IIQQQQQQ", kind, 5, *values, 8)
        body += data
    for kind, data in [(0, b""), *sections] if sections else []:
        offset = start + len(body)
        layout = mark + "II" + word * 4 + "II" + word * 2
        section_headers += struct.pack(layout, 0, kind, 0, 0, offset, len(data), 0, 0, 1, 0)
        body += data
    count = len(section_headers) // shdr_size
    ident = b"\x7fELF" + bytes((bits // 32, 1 if mark == "<" else 2, 1)) + bytes(9)
    header = ident + struct.pack(
        mark + "HHI" + word * 3 + "IHHHHHH",
        elf_type,
        machine,
        1,
        0,
        ehdr_size if segments else 0,
        start + len(body) if count else 0,
        flags,
        ehdr_size,
        phdr_size,
        len(segments),
        shdr_size,
        count,
        0,
    )
    return header + headers + body + section_headers


@pytest.fixture(scope="session")
def elf() -> ElfMaker:
    return make_elf
