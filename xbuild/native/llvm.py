"""Make LLVM's library of this host the tree's in the two things that it knows of its machine.

``llvm::sys::getDefaultTargetTriple`` says what clang compiles for, and is made to say the tree's;
``/proc/self/exe`` tells clang where it is, and with that its headers and libraries: it would find
itself in the set. Where there is no such file, LLVM looks for argv[0] on PATH as a shell does
(getprogpath in lib/Support/Unix/Path.inc), which is the tree's.
"""

from __future__ import annotations

import io
import re
import struct

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.hash import GNUHashSection
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from xbuild.errors import DamagedElf
from xbuild.native.elf_patch import ElfPatch

_LIBRARY = re.compile(r"libLLVM[.-].*")
_TRIPLE = re.compile(r"[a-z0-9_]+(?:-[a-z0-9_]+){2,3}")
_FUNCTION = "_ZN4llvm3sys22getDefaultTargetTripleB5cxx11Ev"
_OPERATOR_NEW = "_Znwm"
_OWN_PROGRAM, _NOWHERE = b"/proc/self/exe\0", b"/proc/self/.no\0"


def is_llvm(name: str) -> bool:
    """Tell whether a library is LLVM's own, by its file's name."""
    return _LIBRARY.fullmatch(name) is not None


def retarget(content: bytes, triple: str) -> bytes:
    """Return the library ``content`` (of x86-64) with ``triple`` as the target by default.

    Raises DamagedElf for a library of another form or machine.
    """
    if not _TRIPLE.fullmatch(triple):
        raise DamagedElf(f"{triple!r} names no target")
    try:
        image = ELFFile(io.BytesIO(content))
        address, size = _function(image)
        slot = _slot_of_operator_new(image)
    except ELFError as error:
        raise DamagedElf(f"it cannot be read: {error}") from error
    code = _code(triple.encode(), address, slot)
    if len(code) > size:
        raise DamagedElf(f"{_FUNCTION} has {size} bytes, too few for another target")
    patch = ElfPatch(content)
    place = patch.offset_of(address)
    if place is None:
        raise DamagedElf(f"{_FUNCTION} is in none of its segments")
    patch.write(place, code)
    at = patch.find(_OWN_PROGRAM)
    while at >= 0:
        patch.write(at, _NOWHERE)
        at = patch.find(_OWN_PROGRAM)
    return patch.finish()


def _function(image: ELFFile) -> tuple[int, int]:
    """Return the address and size of the function that tells the default target."""
    table = image.get_section_by_name(".gnu.hash")
    symbol = table.get_symbol(_FUNCTION) if isinstance(table, GNUHashSection) else None
    if image["e_machine"] != "EM_X86_64" or symbol is None:
        raise DamagedElf(f"it has no {_FUNCTION} of x86-64")
    return symbol["st_value"], symbol["st_size"]


def _slot_of_operator_new(image: ELFFile) -> int:
    """Return the address of the word that holds the address of ``operator new(unsigned long)``."""
    calls = image.get_section_by_name(".rela.plt")
    symbols = image.get_section_by_name(".dynsym")
    if isinstance(calls, RelocationSection) and isinstance(symbols, SymbolTableSection):
        for call in calls.iter_relocations():
            if symbols.get_symbol(call["r_info_sym"]).name == _OPERATOR_NEW:
                return int(call["r_offset"])
    raise DamagedElf("it does not call operator new")


def _code(text: bytes, address: int, slot: int) -> bytes:
    """Return machine code that returns ``text`` as libstdc++'s string: pointer, length, room.

    The caller gives the string's place in rdi (System V ABI, returned values in memory).
    """
    length = len(text)
    parts = (
        b"\xf3\x0f\x1e\xfa",  # endbr64
        b"\x53",  # push %rbx
        b"\x48\x89\xfb",  # mov %rdi, %rbx
        b"\xbf" + struct.pack("<I", length + 1),  # mov $length+1, %edi
        b"\xff\x15" + struct.pack("<i", slot - (address + 19)),  # call *slot(%rip)
        b"\x48\x89\x03",  # mov %rax, (%rbx)
        b"\x48\xc7\x43\x08" + struct.pack("<I", length),  # movq $length, 8(%rbx)
        b"\x48\xc7\x43\x10" + struct.pack("<I", length),  # movq $length, 16(%rbx)
        b"\x48\x89\xc7",  # mov %rax, %rdi
        b"\x48\x8d\x35" + struct.pack("<i", 12),  # lea text(%rip), %rsi
        b"\xb9" + struct.pack("<I", length + 1),  # mov $length+1, %ecx
        b"\xf3\xa4",  # rep movsb
        b"\x48\x89\xd8",  # mov %rbx, %rax
        b"\x5b",  # pop %rbx
        b"\xc3",  # ret
        text + b"\0",
    )
    return b"".join(parts)
