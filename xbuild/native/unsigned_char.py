"""Give programs of x86-64 a char without sign, where that decides what they write.

ARM, RISC-V, POWER and S/390 have it so. Most programs convert each byte before they look at it; the
rest is in what sorts or hashes by bytes above 127: make's $(sort), the order of bash's and gawk's
arrays. There, movsx (0F BE) becomes movzx (0F B6), which is as long. What is not found is left as
it is, for the corpus to judge, which has such bytes.
"""

from __future__ import annotations

import io
import re
import struct

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from xbuild.native.elf_patch import ElfPatch

_MOVSX, _MOVZX = b"\x0f\xbe", b"\x0f\xb6"
# movsbl (%rdi),%eax; movsbl (%rsi),%edx; and then sub or cmp: first characters, before strcmp(3).
_FIRST_CHARACTERS = (b"\x0f\xbe\x07\x0f\xbe\x16\x29\xd0", b"\x0f\xbe\x07\x0f\xbe\x16\x38\xd0")
_POSIX_ORDER = b"\x0f\xbe\x03\x0f\xbe\x55\x00\x29\xd0"  # strvec_posixcmp
_HASHES_OF_BASH = frozenset(
    ("hash_string", "hash_bucket", "hash_search", "hash_remove", "hash_insert")
)
# What gawk's gst_hash_string begins with (str_array.c): its loop is behind that, and before it the
# function that is used unless AWK_HASH says otherwise.
_HASH_OF_GAWK = struct.pack("<I", 0x593AE6E1)
_BEFORE, _BEHIND = 0x160, 32
_MOVSX_AT = re.compile(rb"(?<=[\x48-\x4f])\x0f\xbe(?=[\x00-\x3f])")  # movsbq (%r64),%r64
PROGRAMS = frozenset(("bash", "gawk", "make"))


def remove_sign(patch: ElfPatch, content: bytes) -> None:
    """Change all such places in one of PROGRAMS; ``content`` is the file as it was."""
    for pattern in (*_FIRST_CHARACTERS, _POSIX_ORDER):
        at = patch.find(pattern)
        while at >= 0:
            patch.write(at, pattern.replace(_MOVSX, _MOVZX))
            at = patch.find(pattern, at + 1)
    at = patch.find(_HASH_OF_GAWK)
    if at >= 0:
        around = patch.read(at - _BEFORE, _BEFORE + _BEHIND)
        patch.write(at - _BEFORE, _MOVSX_AT.sub(_MOVZX, around))
    table = ELFFile(io.BytesIO(content)).get_section_by_name(".dynsym")
    if not isinstance(table, SymbolTableSection):
        return
    for symbol in table.iter_symbols():
        start = patch.offset_of(symbol["st_value"])
        if symbol.name in _HASHES_OF_BASH and start is not None:
            code = patch.read(start, symbol["st_size"])
            patch.write(start, code.replace(_MOVSX, _MOVZX))
