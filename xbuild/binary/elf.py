"""ELF identity: what the kernel's own loader looks at, read from hostile bytes in bounded time.

Scope: the file header and the program headers, by struct alone, because surveys and the start of
a container read them by the hundred. ABI attributes in sections are ``xbuild.binary.abi``'s.
Formats: the ELF gABI, chapters 4 and 5; limits: fs/binfmt_elf.c.
"""

from __future__ import annotations

import os
from _struct import Struct, unpack_from

from xbuild.errors import DamagedElf, NotElf
from xbuild.record import GuestPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Protocol

    from xbuild.record import ByteOrder

    class SeekableReader(Protocol):
        """The part of a binary file that reading an ELF file needs."""

        def seek(self, offset: int, whence: int = ..., /) -> int: ...  # noqa: D102
        def read(self, size: int = ..., /) -> bytes: ...  # noqa: D102


# elf.h
ELFMAG = b"\x7fELF"
ELFCLASS32, ELFCLASS64 = 1, 2
ELFDATA2LSB, ELFDATA2MSB = 1, 2
EV_CURRENT = 1
ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED = 0, 1

SNIFF_BYTES = 64  # sizeof(Elf64_Ehdr), the larger of the two
PROGRAM_HEADERS_LIMIT = 65536  # bytes; load_elf_phdrs() in fs/binfmt_elf.c refuses more
INTERPRETER_LIMIT = 4096  # PATH_MAX, as load_elf_binary() has it
DYNAMIC_LIMIT = 65536  # bytes; linkers put DT_NEEDED first, and real sections are 1 KiB

_EHDR = {32: "HHIIIIIHHHHHH", 64: "HHIQQQIHHHHHH"}  # from e_type on
_EHDR_SIZE = {32: 52, 64: 64}
_PHDR = {32: "IIIIIIII", 64: "IIQQQQQQ"}
_DYN = {32: "iI", 64: "qQ"}
_MARK = {"little": "<", "big": ">"}


class Ident(Record):
    """What an ELF file says of itself in its file header, numbers as they stand there."""

    machine: int
    bits: Literal[32, 64]
    order: ByteOrder
    type: int
    flags: int
    osabi: int = 0
    abiversion: int = 0

    @property
    def is_program(self) -> bool:
        """True for ET_EXEC and ET_DYN: shared objects count, core dumps and objects do not."""
        return self.type in (ET_EXEC, ET_DYN)


class Program(Record):
    """How the kernel would load a file: ``end_bytes`` is the least size that holds its segments.

    A file shorter than ``end_bytes`` was cut off; reading it does not say so, as surveys of
    archives hold only the beginning of each file.
    """

    ident: Ident
    interpreter: GuestPath | None
    is_dynamic: bool
    end_bytes: int = 0

    @property
    def is_static(self) -> bool:
        """True when it runs without any other file; static-pie counts as static."""
        return self.ident.is_program and not self.is_dynamic


def sniff(header: bytes) -> Ident | None:
    """Read a file's first ``SNIFF_BYTES``; None when they are no whole, sane ELF header."""
    if len(header) < 52 or header[:4] != ELFMAG or header[6] != EV_CURRENT:
        return None
    bits = _bits(header[4])
    order = _order(header[5])
    if bits is None or order is None or len(header) < _EHDR_SIZE[bits]:
        return None
    fields = unpack_from(_MARK[order] + _EHDR[bits], header, 16)
    return Ident(fields[1], bits, order, fields[0], fields[6], header[7], header[8])


def _bits(ei_class: int) -> Literal[32, 64] | None:
    if ei_class == ELFCLASS32:
        return 32
    return 64 if ei_class == ELFCLASS64 else None


def _order(ei_data: int) -> ByteOrder | None:
    if ei_data == ELFDATA2LSB:
        return "little"
    return "big" if ei_data == ELFDATA2MSB else None


def read_program(file: SeekableReader) -> Program:
    """Read the identity, PT_INTERP and the presence of DT_NEEDED; the file stays open.

    Files that are neither ET_EXEC nor ET_DYN (core dumps, objects) have their program headers
    left alone. A PT_DYNAMIC that lies beyond the end counts as without DT_NEEDED. Raises NotElf,
    DamagedElf; OSError as the file raises it. Reads at most about 132 KiB, whatever it says.
    """
    file.seek(0)
    header = file.read(SNIFF_BYTES)
    if header[:4] != ELFMAG:
        raise NotElf("not an ELF file")
    ident = sniff(header)
    if ident is None:
        raise DamagedElf("the ELF header is cut off or makes no sense")
    if not ident.is_program:
        return Program(ident, None, False)
    size = file.seek(0, os.SEEK_END)
    interpreter, needed, end = None, False, 0
    for kind, offset, length in _segments(file, header, ident, size):
        if kind == PT_LOAD:
            end = max(end, offset + length)
        elif kind == PT_INTERP and interpreter is None:
            interpreter = _interpreter(file, offset, length, size)
        elif kind == PT_DYNAMIC and interpreter is None:
            needed = needed or _needs_libraries(file, ident, offset, length, size)
    return Program(ident, interpreter, interpreter is not None or needed, end)


def _segments(
    file: SeekableReader, header: bytes, ident: Ident, size: int
) -> list[tuple[int, int, int]]:
    """Return (p_type, p_offset, p_filesz) of each program header."""
    mark = _MARK[ident.order]
    fields = unpack_from(mark + _EHDR[ident.bits], header, 16)
    offset, entry_size, count = fields[4], fields[8], fields[9]
    layout = Struct(mark + _PHDR[ident.bits])
    if count == 0:
        return []
    if entry_size != layout.size or count * entry_size > PROGRAM_HEADERS_LIMIT:
        raise DamagedElf(f"the ELF header declares {count} program headers of {entry_size} bytes")
    table = _read_at(file, offset, count * entry_size, size)
    if len(table) < count * entry_size:
        raise DamagedElf("the ELF file is cut off before the end of its program headers")
    place = 1 if ident.bits == 32 else 2
    length = 4 if ident.bits == 32 else 5
    return [(row[0], row[place], row[length]) for row in layout.iter_unpack(table)]


def _interpreter(file: SeekableReader, offset: int, length: int, size: int) -> GuestPath:
    if not 2 <= length <= INTERPRETER_LIMIT:
        raise DamagedElf(f"the ELF file names an interpreter of {length} bytes")
    text = _read_at(file, offset, length, size)
    if len(text) < length:
        raise DamagedElf("the ELF file is cut off before the name of its interpreter")
    name = text.split(b"\0", 1)[0]
    if text[-1:] != b"\0" or not name:
        raise DamagedElf("the name of the ELF file's interpreter is not a string")
    return GuestPath(os.fsdecode(name))


def _needs_libraries(
    file: SeekableReader, ident: Ident, offset: int, length: int, size: int
) -> bool:
    layout = Struct(_MARK[ident.order] + _DYN[ident.bits])
    section = _read_at(file, offset, min(length, DYNAMIC_LIMIT), size)
    whole = section[: len(section) // layout.size * layout.size]
    for tag, _ in layout.iter_unpack(whole):
        if tag == DT_NEEDED:
            return True
        if tag == DT_NULL:
            return False
    return False


def _read_at(file: SeekableReader, offset: int, length: int, size: int) -> bytes:
    """Read up to ``length`` bytes; nothing beyond the end, where some files refuse to seek."""
    if offset >= size:
        return b""
    file.seek(offset)
    return file.read(length)
