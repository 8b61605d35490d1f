"""Give a static program first instructions of our own: a segment more, and another entry point.

The file grows at its end and otherwise changes in its headers alone: one PT_NOTE, which nothing
reads when the program runs, makes room for the PT_LOAD. Format: the ELF gABI, chapter 5; what the
kernel makes of it: load_elf_binary() in fs/binfmt_elf.c.
"""

from __future__ import annotations

import struct

from xbuild.binary.elf import ELFMAG, PT_LOAD
from xbuild.errors import DamagedElf

PT_NOTE = 4
PT_GNU_PROPERTY = 0x6474E553
_PF_X, _PF_R = 1, 4
_EHDR = "<16sHHIQQQIHHHHHH"  # 64 bits, little-endian: x86_64 and aarch64, which hosts are
_PHDR = "<IIQQQQQQ"
_TYPE, _FLAGS, _OFFSET, _ADDRESS, _PHYSICAL, _FILE_SIZE, _MEMORY_SIZE, _ALIGN = range(8)
_SEGMENTS_LIMIT = 64
_ALIGN_LIMIT = 1 << 21  # bytes; huge pages


def inject(program: bytes, code: bytes) -> bytes:
    """Return a static 64-bit little-endian ``program`` that begins by running ``code``.

    ``code`` lies at the beginning of a page, readable and executable. A signed word of 8 bytes
    follows it: the distance from that word to the program's own entry point. Raises DamagedElf
    for what cannot be read, or has no PT_NOTE to give up.
    """
    try:
        return _inject(program, code)
    except (struct.error, OverflowError) as error:
        raise DamagedElf("Cannot add a segment: the program's headers are cut off") from error


def _inject(program: bytes, code: bytes) -> bytes:
    header = list(struct.unpack_from(_EHDR, program))
    ident, entry, table, size, count = header[0], header[4], header[5], header[9], header[10]
    if ident[:6] != ELFMAG + b"\x02\x01" or size != struct.calcsize(_PHDR):
        raise DamagedElf("Cannot add a segment: not a 64-bit little-endian ELF file")
    if count > _SEGMENTS_LIMIT:
        raise DamagedElf(f"Cannot add a segment: the program has {count} already")
    segments = [list(struct.unpack_from(_PHDR, program, table + i * size)) for i in range(count)]
    loads = [segment for segment in segments if segment[_TYPE] == PT_LOAD]
    if not loads or max(segment[_ALIGN] for segment in loads) > _ALIGN_LIMIT:
        raise DamagedElf("Cannot add a segment: the program has none, or of a strange alignment")
    segments.remove(_spare(segments))
    align = max(0x1000, *(segment[_ALIGN] for segment in loads))
    address = _up(max(s[_ADDRESS] + s[_MEMORY_SIZE] for s in loads), align)
    offset = _up(len(program), align)
    image = code + bytes(-len(code) % 8)
    image += struct.pack("<q", entry - address - len(image))
    new = [PT_LOAD, _PF_R | _PF_X, offset, address, address, len(image), len(image), align]
    # After the last one: the kernel expects them in the order of their addresses.
    segments.insert(segments.index(loads[-1]) + 1, new)
    header[4] = address
    changed = bytearray(program)
    struct.pack_into(_EHDR, changed, 0, *header)
    for i, segment in enumerate(segments):
        struct.pack_into(_PHDR, changed, table + i * size, *segment)
    return bytes(changed) + bytes(offset - len(program)) + image


def _spare(segments: list[list[int]]) -> list[int]:
    """Return the PT_NOTE to give up: best the one that PT_GNU_PROPERTY shows as well."""
    notes = [segment for segment in segments if segment[_TYPE] == PT_NOTE]
    if not notes:
        raise DamagedElf("Cannot add a segment: the program has no PT_NOTE to give up")
    properties = [s[_OFFSET] for s in segments if s[_TYPE] == PT_GNU_PROPERTY]
    return next((note for note in notes if note[_OFFSET] in properties), notes[-1])


def _up(number: int, align: int) -> int:
    return (number + align - 1) // align * align
