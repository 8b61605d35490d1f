"""What GCC's programs have built in: their configuration, their paths, their list of headers.

Scope: reading and changing these in the bytes of a program. Debian's cross compilers differ from
the native ones of the same source in paths (``gcc-cross``), in C++ directories below the target's
own prefix, and in leaving out ``/usr/local/include`` (patch cross-no-locale-include).
"""

from __future__ import annotations

import re
import struct

from xbuild.errors import DamagedElf
from xbuild.native.elf_patch import ElfPatch

_CONFIGURATION = re.compile(rb"(?<=\0)[^\0\s]*configure (?:-v )?--[^\0]*")
_LOCAL = b"/usr/local/include"
_LIBCXX = 2  # default_include.cplusplus: for -stdlib=libc++ alone, which Debian's GCC lacks
# struct default_include of gcc/cppdefault.h: name, component, cplusplus, cxx_aware, add_sysroot,
# multilib; of a 64-bit host.
_ENTRY = struct.Struct("<QQBBBB4x")
_COMPONENTS = (b"G++", b"GCC", b"BINUTILS", b"LOCAL")
_MULTIARCH_ENTRY, _PLAIN_ENTRY = 2, 0  # default_include.multilib


def configuration(program: bytes) -> str:
    """Return what ``gcc -v`` says after ``Configured with:``; ``""`` for what is no GCC."""
    found = _CONFIGURATION.search(program)
    return found[0].decode("utf-8", "replace") if found else ""


def path_replacements(triplet: str, version: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return (old, new) pairs of paths that lead a cross compiler to where the native one looks.

    ``version`` is the directory's name below ``/usr/lib/gcc/TRIPLET``.
    """
    cross = f"/usr/lib/gcc-cross/{triplet}/{version}/../../../../{triplet}/include"
    pairs = (
        (f"{cross}/c++/{version}/{triplet}", f"/usr/include/{triplet}/c++/{version}"),
        (f"{cross}/c++/{version}", f"/usr/include/c++/{version}"),
        (f"{cross}/c++/v1", "/usr/include/c++/v1"),
        (cross, f"/usr/{triplet}/include"),
        ("/usr/lib/gcc-cross/", "/usr/lib/gcc/"),
        ("/usr/libexec/gcc-cross/", "/usr/libexec/gcc/"),
    )
    return tuple((old.encode(), new.encode()) for old, new in pairs)


def add_local_include(patch: ElfPatch) -> bool:
    """Have a compiler look into ``/usr/local/include`` where the native one does.

    The entry takes the place of that for libc++, the entries between move up. Returns False where
    the program has no such list (it is no C compiler) or has the entry. Raises DamagedElf for a
    list of another form.
    """
    entries, place = _default_includes(patch)
    local = [i for i, e in enumerate(entries) if patch.string_at(e[0]) == _LOCAL]
    if not entries or any(entries[i][5] == _PLAIN_ENTRY for i in local):
        return False
    multiarch = [i for i in local if entries[i][5] == _MULTIARCH_ENTRY]
    spare = [i for i, entry in enumerate(entries) if entry[2] == _LIBCXX]
    if len(multiarch) != 1 or len(spare) != 1 or spare[0] > multiarch[0]:
        raise DamagedElf("its list of directories for headers is of another form than expected")
    added = (*entries[multiarch[0]][:5], _PLAIN_ENTRY)
    changed = [*entries[: multiarch[0] + 1], added, *entries[multiarch[0] + 1 :]]
    del changed[spare[0]]
    patch.write(place, b"".join(_ENTRY.pack(*entry) for entry in changed))
    return True


def _default_includes(patch: ElfPatch) -> tuple[list[tuple[int, ...]], int]:
    """Return cpp_include_defaults (gcc/cppdefault.cc) and its file offset.

    It is found by its entry for ``/usr/local/include``, read back to its first entry and on to the
    one without a name. Only of a program at fixed addresses (ET_EXEC): no relocations are applied.
    """
    for address in patch.addresses_of(_LOCAL):
        at = patch.find(struct.pack("<Q", address))
        while at >= 0:
            entry = _ENTRY.unpack(patch.read(at, _ENTRY.size))
            if entry[1] == 0 and entry[2] == 0 and entry[4] == 1 and entry[5] in (0, 2):
                return _table_around(patch, at)
            at = patch.find(struct.pack("<Q", address), at + 1)
    return [], 0


def _table_around(patch: ElfPatch, at: int) -> tuple[list[tuple[int, ...]], int]:
    start = at
    while _is_entry(patch, start - _ENTRY.size):
        start -= _ENTRY.size
    entries, place = [], start
    while _is_entry(patch, place):
        entries.append(_ENTRY.unpack(patch.read(place, _ENTRY.size)))
        place += _ENTRY.size
    return entries, start


def _is_entry(patch: ElfPatch, place: int) -> bool:
    name, component, cplusplus, aware, sysroot, multilib = _ENTRY.unpack(
        patch.read(place, _ENTRY.size)
    )
    return (
        max(cplusplus, aware, sysroot, multilib) <= 2
        and patch.string_at(name)[:1] == b"/"
        and (component == 0 or patch.string_at(component) in _COMPONENTS)
    )
