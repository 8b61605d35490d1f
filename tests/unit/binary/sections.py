"""The sections that an ABI is read from, made by hand."""

from __future__ import annotations

import io
import struct

from xbuild.binary.abi import Abi, read_abi

SHT_PROC_ATTRIBUTES = 0x70000003  # of EM_ARM and EM_RISCV
SHT_GNU_ATTRIBUTES = 0x6FFFFFF5
SHT_MIPS_ABIFLAGS = 0x7000002A
PT_MIPS_ABIFLAGS = 0x70000003
PT_GNU_PROPERTY = 0x6474E553


def uleb(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


def attributes(vendor: str, tags: dict[int, int | str], order: str = "little") -> bytes:
    """A section as gas writes it: one vendor, one subsection for the whole file."""
    mark = "<I" if order == "little" else ">I"
    pairs = b"".join(
        uleb(tag) + (uleb(v) if isinstance(v, int) else v.encode() + b"\0")
        for tag, v in tags.items()
    )
    scope = b"\x01" + struct.pack(mark, 5 + len(pairs)) + pairs
    name = vendor.encode() + b"\0"
    return b"A" + struct.pack(mark, 4 + len(name) + len(scope)) + name + scope


def abiflags(
    isa: int, revision: int, fp: int, *, ases: int = 0, isa_ext: int = 0, order: str = "little"
) -> bytes:
    mark = "<" if order == "little" else ">"
    return struct.pack(mark + "HBBBBBBIIII", 0, isa, revision, 1, 1, 0, fp, isa_ext, ases, 0, 0)


def abi_of(content: bytes) -> Abi:
    return read_abi(io.BytesIO(content))
