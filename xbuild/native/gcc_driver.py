"""Make a cross compiler's driver the native one: its specs, its system root, names of programs.

A driver's built-in specs are variables that a table names (gcc/gcc.cc, static_specs); what the
tree's own driver answers to ``-dumpspecs`` is put into them. Scope: drivers at fixed addresses
(ET_EXEC, as GCC links itself); others are left as they are, and then refused by comparison.
"""

from __future__ import annotations

import struct

from xbuild.native.elf_patch import ElfPatch

# With these the tree's own driver runs: what it says of itself, what only it knows (the
# processor, offloading), libraries that make it add options, files of options that could hide one.
EMULATE_FOR = (
    *("-v", "-###", "-Q", "--help", "--target-help", "-dumpspecs", "-print-search-dirs"),
    *("-march=native", "-mcpu=native", "-mtune=native", "-fplugin"),
    *("-fopenmp", "-fopenacc", "-foffload", "-lm", "-lgfortran", "-nostdlib++"),
    *("-specs", "--specs", "@"),
)
"""Beginnings of arguments, as a tool's ``emulate_for`` has them."""
# Options that decide in their own ways whether a language's libraries are linked.
EMULATE_FOR_LANGUAGE = {"g++": ("-x",), "gfortran": ("-x", "-M")}
_OFFLOADED_LIBRARY = b"-l_GCC_m"
# As lang_specific_driver() decides whether libraries are linked (gcc/cp/g++spec.cc and others).
_WHERE_LINKED = "%{!c:%{!S:%{!E:%{!M:%{!MM:%{!r:%{!fsyntax-only:%{!nostdlib:%{!nodefaultlibs:"
_LIBRARIES_ADDED = {
    "g++": "-foffload-options=-l_GCC_m",
    "gfortran": "-foffload-options=-l_GCC_gfortran -foffload-options=-l_GCC_m",
}
_TABLE_ENTRY = 48  # bytes of struct spec_list of a 64-bit host: name, ptr, ptr_spec, ...
_NEAR = 64  # bytes between two variables that gcc.cc declares together
_MOV_EDI, _MOV_ESI = b"\xbf", b"\xbe"  # mov $imm32 of x86-64


def parse_specs(dumped: str) -> dict[str, str]:
    """Return the specs that ``-dumpspecs`` printed, by name."""
    found = {}
    for paragraph in dumped.split("\n\n"):
        name, _, text = paragraph.lstrip("\n").partition("\n")
        if name.startswith("*") and name.endswith(":"):
            found[name[1:-1]] = text
    return found


def adapt_driver(patch: ElfPatch, ours: dict[str, str], theirs: dict[str, str]) -> None:
    """Give the driver the tree's specs ``ours`` where its own, ``theirs``, are others.

    Specs that the program makes up at its start (``link``, ``libgcc``) are left out, as their text
    stands nowhere in it.
    """
    places = _spec_places(patch)
    if "cross_compile" in places and ours.get("cross_compile") == "0":
        _clear_system_root(patch, places["cross_compile"])
    for name, text in ours.items():
        if name in places and theirs.get(name) not in (None, text):
            written = patch.string_at(patch.word_at(places[name]))
            if written == theirs[name].encode():
                patch.set_word(places[name], patch.add_string(text.encode()))


def add_offloaded_libraries(patch: ElfPatch, language: str, tree: bytes, native: bytes) -> None:
    """Have a driver for C++ or Fortran add the options for offloading that the tree's own adds.

    ``tree`` and ``native`` are the programs: only one built for offloading knows the options.
    """
    options = _LIBRARIES_ADDED.get(language)
    place = _spec_places(patch).get("self_spec")
    if options and place and _OFFLOADED_LIBRARY in tree and _OFFLOADED_LIBRARY not in native:
        before = patch.string_at(patch.word_at(place)).decode()
        text = f"{before} {_WHERE_LINKED}{options}{'}' * _WHERE_LINKED.count('{')}".strip()
        patch.set_word(place, patch.add_string(text.encode()))


def use_plain_names(patch: ElfPatch, triplet: str) -> int:
    """Have a program look for ``ld``, not for TRIPLET-ld; return at how many places it did.

    In a cross compiler, collect2 and gcc-ar make such names by concat(TRIPLET, "-", name).
    """
    triplets = _as_immediates(patch, triplet.encode(), _MOV_EDI)
    dashes = _as_immediates(patch, b"-", _MOV_ESI)
    pairs = [(t, d) for d in dashes for t in triplets if abs(t - d) < 40]
    if not pairs:
        return 0
    empty = struct.pack("<I", patch.add_string(b""))
    for place in {place for pair in pairs for place in pair}:
        patch.write(place + 1, empty)
    return len({dash for _, dash in pairs})


def _as_immediates(patch: ElfPatch, text: bytes, opcode: bytes) -> list[int]:
    found = []
    for address in patch.addresses_of(text):
        if address >= 1 << 32:
            continue
        instruction = opcode + struct.pack("<I", address)
        at = patch.find(instruction)
        while at >= 0:
            found.append(at)
            at = patch.find(instruction, at + 1)
    return found


def _spec_places(patch: ElfPatch) -> dict[str, int]:
    """Return the file offset of each static spec's variable, a pointer to its text, by name."""
    for address in patch.addresses_of(b"cross_compile"):
        at = patch.find(struct.pack("<Q", address))
        while at >= 0:
            if at % 8 == 0 and patch.offset_of(patch.word_at(at + 16)) is not None:
                return _table_places(patch, at)
            at = patch.find(struct.pack("<Q", address), at + 1)
    return {}


def _table_places(patch: ElfPatch, at: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for step in (-_TABLE_ENTRY, _TABLE_ENTRY):
        place = at
        while True:
            name = patch.string_at(patch.word_at(place))
            if not name.replace(b"_", b"").isalnum():
                break
            variable = patch.offset_of(patch.word_at(place + 16))
            if variable is not None:  # None: set at the program's start, and in no file
                found[name.decode()] = variable
            place += step
    return found


def _clear_system_root(patch: ElfPatch, cross_compile: int) -> None:
    """Empty target_system_root, which gcc.cc declares next to cross_compile, where it is ``/``."""
    for place in range(cross_compile - _NEAR, cross_compile + _NEAR, 8):
        if patch.string_at(patch.word_at(place)) == b"/":
            patch.set_word(place, 0)
            return
