"""Make a set's root and its tools from unpacked packages of this host."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable

from xbuild.errors import ProviderUnsuitable, TargetError, ToolRefused
from xbuild.native import gcc, gcc_driver, unsigned_char
from xbuild.native.assemble_languages import Languages, ReadTargets
from xbuild.native.c_types import Types
from xbuild.native.elf_patch import ElfPatch
from xbuild.native.gate import check_configuration, language_of
from xbuild.native.programs import Program
from xbuild.native.relocate import LIBRARIES, PLUGIN, Layout
from xbuild.native.roles import LINKERS_OF_BINUTILS, LOADS_PLUGIN, OF_LONG_DOUBLE
from xbuild.record import GuestPath, HostPath, Record, replace
from xbuild.toolset.manifest import Compiler, File, Tool
from xbuild.tree.resolve import DirectoryReader

_MACHINE = re.compile(rb"(?<![a-z0-9_-])[a-z0-9_]+-[a-z]+-linux-[a-z0-9]+(?=\0)")
_PROGRAM_LIMIT = 512 << 20  # bytes
_BFD_PLUGIN = GuestPath(f"/usr/lib/bfd-plugins/{PLUGIN}")
# What bfd/plugin.c makes of BINDIR/../lib/bfd-plugins for a program that is in BINDIR.
_BFD_NAMES = (f"/usr/bin/../bin/../lib/bfd-plugins/{PLUGIN}",)
_LIBRARIES_OF_GAWK = re.compile(rb"/usr/lib/[a-z0-9_-]+/gawk(?=\0)")
_TELLS_MACHINE = frozenset(("make", "bash", "gawk"))
_LONG_DOUBLE = "long_double.so"


Specs = tuple[dict[str, str], dict[str, str]]
"""A driver's built-in specs by name, the tree's and the native one's."""
ReadSpecs = Callable[[tuple[tuple[GuestPath, str], ...]], dict[GuestPath, Specs]]
"""Given drivers, paths in the tree and in the root, asks both for their specs."""


class Assembled(Record):
    """What was made: tools at their highest level, and the compilers that were compared."""

    tools: tuple[Tool, ...]
    compilers: tuple[Compiler, ...]


class Assembler:
    """Adds the programs of one tree to a layout, each with its level or why it has none."""

    def __init__(
        self,
        reader: DirectoryReader,
        layout: Layout,
        triplet: str,
        read_specs: ReadSpecs,
        read_targets: ReadTargets,
        *,
        types: Types,
    ) -> None:
        self._reader = reader
        self._layout = layout
        self._triplet = triplet
        self._read_specs = read_specs
        self._types = types
        self._read_targets = read_targets
        self._specs: dict[GuestPath, Specs] = {}
        self._refused: dict[str, str] = {}
        self._plugins: tuple[str, ...] = ()
        self._unserved: list[GuestPath] = []
        self._compilers: dict[str, Compiler] = {}
        self._languages: Languages | None = None

    def assemble(
        self, programs: tuple[Program, ...], versions: dict[str, str], refused: dict[str, str]
    ) -> Assembled:
        """Add all ``programs`` whose package is in ``versions``, by name; ``refused`` says why.

        Raises OSError for a full disk, ProviderUnsuitable for packages without a C library.
        """
        self._layout.add_base()
        if self._types.long_double:
            self._layout.add_shim(_LONG_DOUBLE, self._types.long_double)
        compilers = [p for p in programs if p.role.kind == "compiler" and p.gcc]
        for program in compilers:
            if program.wanted.name in versions:
                self._compare(program, versions[program.wanted.name])
        self._plugins = self._add_plugins(programs)
        drivers = [p for p in programs if p.role.kind == "driver" and p.wanted.name in versions]
        laid = [(tool.path, tool.native) for tool in map(self._tool, drivers) if tool.native]
        self._specs = self._read_specs(tuple(laid))
        self._languages = self._add_languages(programs, versions)
        tools = []
        for program in programs:
            lacking = _lacking(program, versions)
            if not lacking:
                tools.append(self._tool(program))
            else:
                tools.append(_left_out(program, refused.get(lacking, "no native package")))
        return Assembled(tuple(tools), tuple(self._compilers.values()))

    def _add_languages(
        self, programs: tuple[Program, ...], versions: dict[str, str]
    ) -> Languages | None:
        """Make ready for compilers that are cross compilers as they are, where there are any."""
        chosen = tuple(p for p in programs if p.language and not _lacking(p, versions))
        if not chosen:
            return None
        shells = (p for p in programs if os.path.basename(p.path) == "dash")
        shell = next((s for s in shells if not _lacking(s, versions)), None)
        native = self._native(shell) if shell is not None else None
        return Languages(self._layout, native or "", self._content, chosen, self._read_targets)

    def _compare(self, program: Program, version: str) -> None:
        """Compare a compiler's configuration; refuse all of its version where it differs."""
        native = self._native(program)
        if native is None:
            return
        ours = gcc.configuration(self._content(program.path))
        theirs = gcc.configuration(self._layout.read(native))
        try:
            check_configuration(ours, theirs)
        except ToolRefused as error:
            self._refused[program.gcc] = error.message
        self._compilers[program.path] = Compiler(
            program.path, program.wanted.revision, version, ours
        )

    def _add_plugins(self, programs: tuple[Program, ...]) -> tuple[str, ...]:
        """Add a copy of each version's LTO plugin for each name that it is loaded by.

        Where there is none for a plugin of the tree's, programs that would load it are emulated.
        """
        added: list[str] = []
        directories = {
            os.path.dirname(p.path): p for p in programs if p.role.kind == "compiler" and p.gcc
        }
        for directory, program in sorted(directories.items()):
            path = GuestPath(f"{directory}/{PLUGIN}")
            if self._reader.lookup(path) is None:
                continue
            native = self._native(program)
            source = self._layout.resolved(f"{os.path.dirname(native or '')}/{PLUGIN}")
            if native is None or program.gcc in self._refused or not self._layout.has(source):
                self._unserved.append(path)
                continue
            for alias in self._names_of_plugin(path):
                added.append(self._layout.add_plugin(source, alias, len(added)))
        return tuple(added)

    def _names_of_plugin(self, path: GuestPath) -> tuple[str, ...]:
        """Return the paths that the LTO plugin at ``path`` is loaded by: gcc's, and libbfd's."""
        return (path, *_BFD_NAMES) if self._is_default(path) else (path,)

    def _is_default(self, plugin: GuestPath) -> bool:
        """Tell whether programs of binutils load a plugin without being told to."""
        try:
            return self._reader.resolve(_BFD_PLUGIN) == plugin
        except TargetError:
            return False

    def _tool(self, program: Program) -> Tool:
        native = self._native(program)
        if native is None:
            return _left_out(program, f"{program.wanted.name} has no such program")
        if program.role.level == "none":
            return _left_out(program, program.role.reason)
        if program.gcc in self._refused:
            return _left_out(program, self._refused[program.gcc])
        name = os.path.basename(program.path)
        base = name.removeprefix(f"{self._triplet}-")
        version = os.path.basename(os.path.dirname(native)) if "/gcc" in native else program.gcc
        try:
            if program.language is not None and self._languages is not None:
                return _usable(
                    program, self._languages.add(program, native), program.role.emulate_for
                )
            added = self._layout.add_program(
                native,
                replacements=gcc.path_replacements(self._triplet, version) if program.gcc else (),
                words=self._words(program, native) if name in _TELLS_MACHINE else (),
                plugins=self._plugins if base in LOADS_PLUGIN and not program.gcc else (),
                shim=self._shim(program),
                adapt=self._adaptation(program, native),
            )
        except ProviderUnsuitable as error:
            return _left_out(program, error.message)
        unserved = tuple(self._unserved) if base in LOADS_PLUGIN and not program.gcc else ()
        if base not in LINKERS_OF_BINUTILS and any(map(self._is_default, unserved)):
            return _left_out(program, f"it loads {_BFD_PLUGIN}, and no native one is to be had")
        emulate_for = (*program.role.emulate_for, *unserved, *("@",) * bool(unserved))
        tool = _usable(program, added, emulate_for)
        if self._has_numbers(program):
            return tool
        return replace(tool, level="fast", reason=OF_LONG_DOUBLE)

    def _shim(self, program: Program) -> str:
        needs = program.role.prints_numbers and self._types.long_double
        return f"{LIBRARIES}/{_LONG_DOUBLE}" if needs else ""

    def _has_numbers(self, program: Program) -> bool:
        """Tell whether the native program has the target's numbers, if it prints any."""
        return not program.role.prints_numbers or self._types.long_double is not None

    def _adaptation(self, program: Program, native: str) -> Callable[[ElfPatch], None] | None:
        """Return what else must be changed in a program, once its paths are the tree's."""
        name = os.path.basename(program.path)
        if self._types.needs_unsigned_char and name in unsigned_char.PROGRAMS:
            return lambda patch: unsigned_char.remove_sign(patch, self._layout.read(native))
        if not program.gcc:
            return None

        def adapt(patch: ElfPatch) -> None:
            gcc.add_local_include(patch)
            if program.role.kind in ("driver", "linker"):
                gcc_driver.use_plain_names(patch, self._triplet)
            ours, theirs = self._specs.get(program.path, ({}, {}))
            if ours:
                gcc_driver.adapt_driver(patch, ours, theirs)
                gcc_driver.add_offloaded_libraries(
                    patch,
                    language_of(program.path),
                    self._content(program.path),
                    self._layout.read(native),
                )

        return adapt

    def _native(self, program: Program) -> str | None:
        found = (self._layout.resolved(path) for path in program.natives)
        return next((path for path in found if self._layout.has(path)), None)

    def _words(self, program: Program, native: str) -> tuple[tuple[str, str], ...]:
        """Return what the native program calls the machine, and what the tree's own calls it."""
        name = _LIBRARIES_OF_GAWK if program.path.endswith("/gawk") else _MACHINE
        ours = set(name.findall(self._content(program.path)))
        theirs = set(name.findall(self._layout.read(native)))
        if len(ours) != 1 or len(theirs) != 1:
            return ()
        tree, host = ours.pop().decode(), theirs.pop().decode()
        pairs = [(host, tree)]
        if program.role.kind == "shell":
            pairs.append((host.split("-")[0], tree.split("-")[0]))
            pairs.append(("-".join(host.split("-")[2:]), "-".join(tree.split("-")[2:])))
        return tuple((old, new) for old, new in pairs if old != new)

    def _content(self, path: GuestPath) -> bytes:
        return self._reader.read(path, _PROGRAM_LIMIT)


def list_files(root: HostPath) -> tuple[File, ...]:
    """Return all regular files below a set's root with their digests."""
    found = []
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append(File(os.path.relpath(path, root), digest))
    return tuple(found)


def lower(tool: Tool, reason: str) -> Tool:
    """Return a tool that stays emulated at any level."""
    return replace(tool, level="none", verdict="differs", reason=reason)


def _lacking(program: Program, versions: dict[str, str]) -> str:
    """Return the package that a program cannot do without and there is none of; ``""`` for none."""
    needed = (program.wanted.name, *(each.name for each in program.also))
    return next((name for name in needed if name not in versions), "")


def _usable(program: Program, native: str, emulate_for: tuple[str, ...]) -> Tool:
    return Tool(
        program.path,
        program.sha256,
        program.role.kind,
        native,
        emulate_for=emulate_for,
        drops_preload=program.role.drops_preload,
        level=program.role.level,
        reason=program.role.reason,
    )


def _left_out(program: Program, reason: str) -> Tool:
    return Tool(program.path, program.sha256, program.role.kind, reason=reason)
