"""Change where a native program finds its loader, its libraries and a few of its words.

Scope: 64-bit little-endian ELF programs and libraries of this host, as values: bytes in, bytes
out. What does not fit in its place goes into a new segment behind all others, whose header takes
the place of a PT_NOTE. Formats: the ELF gABI, chapters 4 and 5; what the kernel and ld.so demand of
the order of headers: fs/binfmt_elf.c, elf/dl-load.c (PT_LOAD ascends, PT_INTERP comes first).

Why not patchelf: it cannot repoint references in code, nor add a DT_NEEDED without moving
sections, and a host need not have it.
"""

from __future__ import annotations

import struct

from xbuild.binary.elf import (
    DT_NEEDED,
    DT_NULL,
    ELFCLASS64,
    ELFDATA2LSB,
    ELFMAG,
    PT_DYNAMIC,
    PT_INTERP,
    PT_LOAD,
)
from xbuild.errors import DamagedElf
from xbuild.record import Record

# elf.h
PT_NOTE = 4
PF_W, PF_R = 2, 4
DT_STRTAB, DT_RELA, DT_RELASZ, DT_SONAME, DT_RPATH, DT_RUNPATH = 5, 7, 8, 14, 15, 29
_PHDR = struct.Struct("<IIQQQQQQ")
_DYN = struct.Struct("<qQ")
_TYPE, _PHOFF, _PHNUM = 0x10, 0x20, 0x38
ET_EXEC = 2


class Segment(Record):
    """A program header, fields as the gABI names them."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class ElfPatch:
    """One file being changed: ``finish`` returns its new bytes.

    Raises DamagedElf for what is no whole 64-bit little-endian program or library, and where
    there is no room for a header or an entry.
    """

    def __init__(self, content: bytes) -> None:
        if content[:4] != ELFMAG or content[4:6] != bytes((ELFCLASS64, ELFDATA2LSB)):
            raise DamagedElf("not a 64-bit little-endian ELF file")
        try:
            (self._headers_at,) = struct.unpack_from("<Q", content, _PHOFF)
            (count,) = struct.unpack_from("<H", content, _PHNUM)
            self._segments = [
                Segment(*_PHDR.unpack_from(content, self._headers_at + i * _PHDR.size))
                for i in range(count)
            ]
        except struct.error as error:
            raise DamagedElf(f"its headers lie beyond its end: {error}") from error
        loads = [segment for segment in self._segments if segment.type == PT_LOAD]
        if not loads:
            raise DamagedElf("it has no segment to load")
        self._bytes = bytearray(content)
        page = max(segment.align for segment in loads)
        self._new_offset = _aligned(len(content), page)
        end = max(segment.vaddr + segment.memsz for segment in loads)
        self._new_address = _aligned(end, page)
        self._page = page
        self._new = bytearray()
        self._dynamic = self._read_dynamic()

    @property
    def interpreter(self) -> str | None:
        """The loader that the program names; None for libraries and static programs."""
        segment = self._segment(PT_INTERP)
        if segment is None:
            return None
        return bytes(self._slice(segment)).rstrip(b"\0").decode("utf-8", "surrogateescape")

    @property
    def is_dynamic(self) -> bool:
        """True where there is a dynamic section that can be changed."""
        return bool(self._dynamic)

    @property
    def needed(self) -> tuple[str, ...]:
        """The names of DT_NEEDED, in order, as they were at first."""
        return tuple(self._dynamic_string(v) for tag, v in self._dynamic if tag == DT_NEEDED)

    @property
    def library_path(self) -> tuple[str, ...]:
        """The directories of DT_RUNPATH and DT_RPATH, as they were at first."""
        texts = [self._dynamic_string(v) for t, v in self._dynamic if t in (DT_RPATH, DT_RUNPATH)]
        return tuple(directory for text in texts for directory in text.split(":"))

    def set_interpreter(self, path: str) -> None:
        """Name another loader: in place where the path is no longer, else in the new segment."""
        number = self._index(PT_INTERP)
        if number is None:
            raise DamagedElf("it names no loader")
        segment, text = self._segments[number], path.encode() + b"\0"
        if len(text) <= segment.filesz:
            offset, address = segment.offset, segment.vaddr
            self._bytes[offset : offset + segment.filesz] = text.ljust(segment.filesz, b"\0")
        else:
            address = self._append(text)
            offset = self._new_offset + address - self._new_address
        self._segments[number] = Segment(
            PT_INTERP, segment.flags, offset, address, address, len(text), len(text), 1
        )

    def set_library_path(self, path: str) -> None:
        """Have libraries looked for in ``path`` first, before LD_LIBRARY_PATH (DT_RPATH)."""
        kept = [entry for entry in self._dynamic if entry[0] not in (DT_RPATH, DT_RUNPATH)]
        self._dynamic = [*kept, (DT_RPATH, self._string(path))]

    def add_needed(self, path: str) -> None:
        """Have one more library loaded, after all others."""
        last = max((i for i, e in enumerate(self._dynamic) if e[0] == DT_NEEDED), default=-1)
        self._dynamic.insert(last + 1, (DT_NEEDED, self._string(path)))

    def add_needed_first(self, path: str) -> None:
        """Have one more library loaded, before all others, so that its symbols go before theirs."""
        self._dynamic.insert(0, (DT_NEEDED, self._string(path)))

    def set_soname(self, name: str) -> None:
        """Give a library the name that it is known by once it is loaded."""
        kept = [entry for entry in self._dynamic if entry[0] != DT_SONAME]
        self._dynamic = [*kept, (DT_SONAME, self._string(name))]

    def find(self, content: bytes, start: int = 0) -> int:
        """Return the file offset of ``content`` at or behind ``start``, -1 where it is not."""
        return self._bytes.find(content, start)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file as changed so far; zeros beyond its end."""
        return bytes(self._bytes[max(offset, 0) : max(offset, 0) + size]).ljust(size, b"\0")

    def write(self, offset: int, content: bytes) -> None:
        """Overwrite bytes of the file."""
        self._bytes[offset : offset + len(content)] = content

    def word_at(self, offset: int) -> int:
        """Return the 64-bit number at a file offset."""
        (word,) = struct.unpack("<Q", self.read(offset, 8))
        return int(word)

    def set_word(self, offset: int, value: int) -> None:
        """Overwrite the 64-bit number at a file offset."""
        self.write(offset, struct.pack("<Q", value))

    def add_string(self, text: bytes) -> int:
        """Put a string into the new segment; return the address at which it is loaded."""
        return self._append(text + b"\0")

    def offset_of(self, address: int) -> int | None:
        """Return the file offset of what is loaded at ``address``; None where nothing is."""
        try:
            return self._offset_of(address)
        except DamagedElf:
            return None

    def addresses_of(self, text: bytes) -> tuple[int, ...]:
        """Return where the NUL-terminated string ``text`` is loaded, ends of longer ones included.

        Linkers let a string be the end of another one.
        """
        found, at = [], self._bytes.find(text + b"\0")
        while at >= 0:
            found.append(self._address_of(at))
            at = self._bytes.find(text + b"\0", at + 1)
        return tuple(address for address in found if address >= 0)

    def string_at(self, address: int) -> bytes:
        """Return the NUL-terminated string that is loaded at ``address``; empty for no string."""
        try:
            start = self._offset_of(address)
            return bytes(self._bytes[start : self._bytes.index(b"\0", start)])
        except (DamagedElf, ValueError):
            return b""

    def replace_strings(self, pairs: tuple[tuple[bytes, bytes], ...]) -> int:
        """Replace parts of NUL-terminated strings by shorter ones in place; return how many.

        Each string that has the first of a pair has it replaced, and is padded with NULs.
        """
        found = 0
        for old, new in pairs:
            if len(new) > len(old):
                raise ValueError(f"{new!r} is longer than {old!r}")
            at = self._bytes.find(old)
            while at >= 0:
                end = self._bytes.index(b"\0", at)
                text = self._bytes[at:end].replace(old, new)
                self._bytes[at:end] = text.ljust(end - at, b"\0")
                found += 1
                at = self._bytes.find(old, at + len(new))
        return found

    def repoint_string(self, old: bytes, new: bytes) -> int:
        """Make every reference to the string ``old`` one to ``new``, which may be longer.

        References are x86-64's: ``lea`` with an address relative to the next instruction,
        R_X86_64_RELATIVE relocations, and pointers in data of programs at fixed addresses (that
        in instructions, as of GCC's drivers, are left). Returns how many there were.
        """
        targets = set(self.addresses_of(old))
        if not targets:
            return 0
        address = self._append(new + b"\0")
        found = self._repoint_code(targets, address) + self._repoint_data(targets, address)
        return found + (self._repoint_pointers(targets, address) if self._is_fixed else 0)

    def finish(self) -> bytes:
        """Return the changed file."""
        self._write_dynamic()
        if self._new:
            self._add_segment()
        for number, segment in enumerate(self._segments):
            place = self._headers_at + number * _PHDR.size
            _PHDR.pack_into(self._bytes, place, *segment._values())
        if not self._new:
            return bytes(self._bytes)
        padding = bytes(self._new_offset - len(self._bytes))
        return bytes(self._bytes) + padding + bytes(self._new)

    def _add_segment(self) -> None:
        spare = max((i for i, s in enumerate(self._segments) if s.type == PT_NOTE), default=None)
        if spare is None:
            raise DamagedElf("it has no note whose header could be used")
        del self._segments[spare]
        last = max(i for i, s in enumerate(self._segments) if s.type == PT_LOAD)
        size = len(self._new)
        self._segments.insert(
            last + 1,
            Segment(
                PT_LOAD,
                PF_R | PF_W,
                self._new_offset,
                self._new_address,
                self._new_address,
                size,
                size,
                self._page,
            ),
        )

    def _repoint_code(self, targets: set[int], address: int) -> int:
        found = 0
        for segment in self._segments:
            if segment.type != PT_LOAD or not segment.flags & 1:  # PF_X
                continue
            code = bytes(self._slice(segment))
            for prefix in (b"\x48\x8d", b"\x4c\x8d"):  # lea r64, [rip + disp32]
                at = code.find(prefix)
                while at >= 0 and at + 7 <= len(code):
                    (distance,) = struct.unpack_from("<i", code, at + 3)
                    following = segment.vaddr + at + 7
                    if code[at + 2] & 0xC7 == 0x05 and following + distance in targets:
                        place = segment.offset + at + 3
                        struct.pack_into("<i", self._bytes, place, address - following)
                        found += 1
                    at = code.find(prefix, at + 1)
        return found

    def _repoint_data(self, targets: set[int], address: int) -> int:
        values = dict(self._dynamic)
        if DT_RELA not in values:
            return 0
        found, start = 0, self._offset_of(values[DT_RELA])
        for place in range(start, start + values.get(DT_RELASZ, 0), 24):
            _, kind, addend = struct.unpack_from("<QQq", self._bytes, place)
            if kind == 8 and addend in targets:  # R_X86_64_RELATIVE
                struct.pack_into("<q", self._bytes, place + 16, address)
                found += 1
        return found

    @property
    def _is_fixed(self) -> bool:
        return self._bytes[_TYPE : _TYPE + 2] == struct.pack("<H", ET_EXEC)

    def _repoint_pointers(self, targets: set[int], address: int) -> int:
        found = 0
        for segment in self._segments:
            if segment.type != PT_LOAD or segment.flags & 1:  # PF_X
                continue
            start = segment.offset + -segment.vaddr % 8
            for place in range(start, segment.offset + segment.filesz - 7, 8):
                if self.word_at(place) in targets:
                    self.set_word(place, address)
                    found += 1
        return found

    def _read_dynamic(self) -> list[tuple[int, int]]:
        segment = self._segment(PT_DYNAMIC)
        if segment is None:
            return []
        entries = []
        for place in range(segment.offset, segment.offset + segment.filesz, _DYN.size):
            tag, value = _DYN.unpack_from(self._bytes, place)
            if tag == DT_NULL:
                break
            entries.append((tag, value))
        return entries

    def _write_dynamic(self) -> None:
        number = self._index(PT_DYNAMIC)
        if number is None:
            return
        segment = self._segments[number]
        content = b"".join(_DYN.pack(tag, value) for tag, value in (*self._dynamic, (DT_NULL, 0)))
        if len(content) > segment.filesz:
            raise DamagedElf("its dynamic section has no room for another entry")
        offset = segment.offset
        self._bytes[offset : offset + segment.filesz] = content.ljust(segment.filesz, b"\0")

    def _string(self, text: str) -> int:
        """Place a string of the dynamic section; return it as an offset into the string table."""
        table = dict(self._dynamic)[DT_STRTAB]
        return self._append(text.encode() + b"\0") - table

    def _dynamic_string(self, offset: int) -> str:
        start = self._offset_of(dict(self._dynamic)[DT_STRTAB]) + offset
        end = self._bytes.index(b"\0", start)
        return self._bytes[start:end].decode("utf-8", "surrogateescape")

    def _append(self, content: bytes) -> int:
        """Put ``content`` into the new segment; return its address."""
        address = self._new_address + len(self._new)
        self._new += content.ljust(_aligned(len(content), 8), b"\0")
        return address

    def _segment(self, kind: int) -> Segment | None:
        number = self._index(kind)
        return None if number is None else self._segments[number]

    def _index(self, kind: int) -> int | None:
        return next((i for i, s in enumerate(self._segments) if s.type == kind), None)

    def _slice(self, segment: Segment) -> bytearray:
        return self._bytes[segment.offset : segment.offset + segment.filesz]

    def _address_of(self, offset: int) -> int:
        for segment in self._segments:
            if segment.type == PT_LOAD and 0 <= offset - segment.offset < segment.filesz:
                return segment.vaddr + offset - segment.offset
        return -1  # in no segment: nothing refers to it

    def _offset_of(self, address: int) -> int:
        for segment in self._segments:
            if segment.type == PT_LOAD and 0 <= address - segment.vaddr < segment.filesz:
                return segment.offset + address - segment.vaddr
        raise DamagedElf(f"the address {address:#x} is in none of its segments")


def _aligned(number: int, unit: int) -> int:
    return -(-number // unit) * unit
