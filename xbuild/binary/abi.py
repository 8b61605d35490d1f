"""Read what a program asks of its machine beyond the architecture, with pyelftools.

Scope: gathering the evidence of one file, bounded in time and memory; what it means is decided in
``xbuild.binary.psabi``. Off the start path.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any, cast

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile
from elftools.elf.notes import iter_notes

from xbuild.binary.elf import ET_CORE, read_program
from xbuild.binary.psabi import Abi, Evidence, judge
from xbuild.errors import DamagedElf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xbuild.binary.elf import SeekableReader

__all__ = ["Abi", "read_abi"]

PART_LIMIT = 65536  # bytes of one section or segment; real ones have about 100
READ_LIMIT = 4 << 20  # bytes in all
CALLS_LIMIT = 50_000  # reads in all: some 4,000 section headers, half a second

# pyelftools has names for the types it knows and numbers for others; versions differ.
_ATTRIBUTES = ("SHT_ARM_ATTRIBUTES", "SHT_RISCV_ATTRIBUTES", 0x70000003)
_GNU_ATTRIBUTES = ("SHT_GNU_ATTRIBUTES", 0x6FFFFFF5)
_ABIFLAGS = ("SHT_MIPS_ABIFLAGS", 0x7000002A)
_ABIFLAGS_SEGMENT = ("PT_MIPS_ABIFLAGS",)
_PROPERTY_SEGMENT = ("PT_GNU_PROPERTY", 0x6474E553)
_ISA_NEEDED = ("GNU_PROPERTY_X86_ISA_1_NEEDED", 0xC0008002)


def read_abi(stream: SeekableReader) -> Abi:
    """Read all that a file says about its ABI; the stream stays open.

    Raises NotElf, DamagedElf (the headers, sections or attributes contradict themselves); OSError
    as the stream raises it.
    """
    program = read_program(stream)
    if program.ident.type == ET_CORE:
        return judge(program, Evidence())
    bounded = _BoundedReader(stream)
    try:
        evidence = _gather(_open(bounded), bounded)
    except (ELFError, ConstructError) as error:  # the latter from its notes
        raise DamagedElf(f"the ELF file contradicts itself: {error}") from error
    return judge(program, evidence)


def _open(stream: _BoundedReader) -> ELFFile:
    try:
        # cast: pyelftools types its stream as a whole IO, and only seeks, tells and reads.
        return ELFFile(cast("IO[bytes]", stream))
    except TypeError as error:  # pyelftools before 0.33, where the section table is nowhere
        raise DamagedElf("the ELF file's section headers lie beyond its end") from error


def _gather(elf: ELFFile, stream: _BoundedReader) -> Evidence:
    attributes = gnu = abiflags = b""
    isa_needed = 0
    for header in _section_headers(elf):
        if header["sh_type"] in _ATTRIBUTES:
            attributes = stream.part(header["sh_offset"], header["sh_size"])
        elif header["sh_type"] in _GNU_ATTRIBUTES:
            gnu = stream.part(header["sh_offset"], header["sh_size"])
        elif header["sh_type"] in _ABIFLAGS:
            abiflags = stream.part(header["sh_offset"], header["sh_size"])
    for header in _segment_headers(elf):
        if header["p_type"] in _ABIFLAGS_SEGMENT:
            abiflags = stream.part(header["p_offset"], header["p_filesz"])
        elif header["p_type"] in _PROPERTY_SEGMENT:
            isa_needed |= _isa_needed(elf, header["p_offset"], header["p_filesz"])
    return Evidence(attributes, gnu, abiflags, isa_needed)


# Any: the fields of pyelftools' containers are typed by the format at run time. Its own iterators
# over sections follow names and links into the rest of the file, which we do not want.


def _section_headers(elf: ELFFile) -> Iterator[dict[str, Any]]:
    layout = elf.structs.Elf_Shdr
    # 0 with a table stands for 65280 sections or more (gABI), which no program has.
    if elf["e_shnum"] == 0:
        return iter(())
    _check_size(elf["e_shentsize"], layout.sizeof(), "section")
    return _table(elf, layout, elf["e_shoff"], elf["e_shnum"])


def _segment_headers(elf: ELFFile) -> Iterator[dict[str, Any]]:
    layout = elf.structs.Elf_Phdr
    if elf["e_phnum"] == 0:
        return iter(())
    _check_size(elf["e_phentsize"], layout.sizeof(), "program")
    return _table(elf, layout, elf["e_phoff"], elf["e_phnum"])


def _check_size(declared: int, size: int, kind: str) -> None:
    if declared != size:
        raise DamagedElf(f"the ELF file has {kind} headers of {declared} bytes, not {size}")


def _table(elf: ELFFile, layout: Any, offset: int, count: int) -> Iterator[dict[str, Any]]:
    size = layout.sizeof()
    for index in range(count):
        yield struct_parse(layout, elf.stream, stream_pos=offset + index * size)


def _isa_needed(elf: ELFFile, offset: int, size: int) -> int:
    """Return the x86 ISA levels of .note.gnu.property as its bits: 1 baseline, 2 v2, 4 v3, 8 v4."""
    needed = 0
    for note in iter_notes(elf, offset, min(size, PART_LIMIT)):
        if note["n_type"] != "NT_GNU_PROPERTY_TYPE_0" or note["n_name"] != "GNU":
            continue
        properties: Iterable[dict[str, Any]] = note["n_desc"]
        for entry in properties:
            if entry["pr_type"] in _ISA_NEEDED and isinstance(entry["pr_data"], int):
                needed |= entry["pr_data"]
    return needed


class _BoundedReader:
    """A stream with an end to what can be made of it: hostile headers reach DamagedElf, not memory.

    With a bound on calls no loop that reads goes on for ever, whoever wrote it.
    """

    def __init__(self, stream: SeekableReader) -> None:
        self._stream = stream
        self._calls = 0
        self._bytes = 0
        self._position = 0
        self._size = stream.seek(0, os.SEEK_END)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset += self._size
        elif whence == os.SEEK_CUR:
            offset += self._position
        if not 0 <= offset <= self._size:
            raise DamagedElf("the ELF file refers to a place beyond its end")
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        self._calls += 1
        wanted = self._size - self._position if size < 0 else size
        self._bytes += min(wanted, self._size - self._position)
        if self._calls > CALLS_LIMIT or self._bytes > READ_LIMIT:
            raise DamagedElf("the ELF file's headers would take too long to read")
        self._stream.seek(self._position)
        data = self._stream.read(min(wanted, self._size - self._position))
        self._position += len(data)
        return data

    def part(self, offset: int, size: int) -> bytes:
        """Return all of a section or segment, or raise DamagedElf."""
        if size > PART_LIMIT:
            raise DamagedElf(f"the ELF file has {size} bytes of ABI attributes")
        self.seek(offset)
        data = self.read(size)
        if len(data) < size:
            raise DamagedElf("the ELF file is cut off within its ABI attributes")
        return data
