"""Which programs of a tree native ones could stand in for, and from which package each would come.

Reads dpkg's database and the files themselves; runs nothing. A program counts by the package that
owns it and by being an ELF file of the tree's architecture: wrappers on PATH (colorgcc, links to
ccache) are scripts or links to elsewhere, and none of these packages has them.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat

from xbuild.binary.arch import Arch
from xbuild.binary.elf import SNIFF_BYTES, sniff
from xbuild.errors import TargetError
from xbuild.native.fetch import MULTIARCH, Wanted
from xbuild.native.installed import Database, package_files
from xbuild.native.languages import (
    Language,
    language_of_package,
    native_of_language,
    role_in,
)
from xbuild.native.roles import Role, role_of_binutils, role_of_compiler, role_of_plain
from xbuild.record import GuestPath, Record
from xbuild.tree.dpkg import Package
from xbuild.tree.resolve import DirectoryReader

_PROGRAM_PLACES = (
    *("/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/", "/usr/lib/gcc/", "/usr/libexec/"),
    *("/usr/lib/llvm-", "/usr/lib/go-"),
)
_GCC_SOURCE = re.compile(r"gcc-(?P<version>\d+(?:\.\d+)?)(?:-.*)?$")


class Program(Record):
    """A program of the tree: ``path`` is free of symbolic links.

    ``natives`` are the paths at which ``wanted``, the package for this host, may have it (without
    leading slash). ``gcc`` is the version's directory name for programs of GCC, else ``""``;
    ``language`` is told of a compiler that is a cross compiler as it is, and ``also`` are packages
    of the tree's revisions that do the better part of its work.
    """

    path: GuestPath
    sha256: str
    role: Role
    wanted: Wanted
    natives: tuple[str, ...]
    gcc: str = ""
    language: Language | None = None
    also: tuple[Wanted, ...] = ()


def find_programs(
    reader: DirectoryReader, database: Database, arch: Arch, machine: str
) -> tuple[Program, ...]:
    """Return all programs that have a role, by path; each file once, however many names it has.

    ``machine`` is the host's name. Raises TargetError for a tree that cannot be read.
    """
    triplet = MULTIARCH.get(database.architecture, "")
    found: dict[GuestPath, Program] = {}
    for package in database.packages:
        origin = _Origin(package, database, triplet, arch.bits, machine)
        if not origin.has_roles:
            continue
        for path in package_files(reader, package):
            if path.startswith(_PROGRAM_PLACES):
                program = _program(reader, arch, origin, path)
                if program is not None:
                    found.setdefault(program.path, program)
    return tuple(found[path] for path in sorted(found))


class _Origin:
    """A package of the tree, and how its programs are named in the one for this host."""

    def __init__(
        self, package: Package, database: Database, triplet: str, bits: int, machine: str
    ) -> None:
        self._package = package
        self._triplet = triplet
        self._bits = bits
        self._machine = machine
        gcc = _GCC_SOURCE.match(package.source)
        self.gcc = gcc["version"] if gcc else ""
        self._is_binutils = package.source == "binutils"
        suffix = "-" + triplet.replace("_", "-")
        name = package.name
        if self.gcc or self._is_binutils:
            name = name if name.endswith(suffix) else name + suffix
        self.wanted = Wanted(name, package.version)
        self.language = language_of_package(package.name, database)
        companions = self.language.companions if self.language is not None else ()
        found = (database.named(each) for each in companions)
        self.also = tuple(Wanted(each.name, each.version) for each in found if each is not None)

    @property
    def has_roles(self) -> bool:
        if self.language is not None:
            return True
        if self.gcc or self._is_binutils:
            return bool(self._triplet) and "lib" not in self._package.name
        return self.role("") is not None

    def role(self, path: str) -> Role | None:
        if self.language is not None:
            return role_in(self.language, path)
        name = os.path.basename(path)
        base = name.removeprefix(f"{self._triplet}-") if self._triplet else name
        if self.gcc:
            return role_of_compiler(base)
        if self._is_binutils:
            return role_of_binutils(base)
        return role_of_plain(
            self._package.name, name, bits=self._bits, architecture=self._package.architecture
        )

    def natives(self, path: str) -> tuple[str, ...]:
        """Return where the package for this host may have the program."""
        if self.language is not None:
            return (native_of_language(path, self._machine),)
        directory, name = os.path.split(path.lstrip("/"))
        if not (self.gcc or self._is_binutils):
            other = directory.removeprefix("usr/") if directory.startswith("usr/") else None
            places = (directory, f"usr/{directory}" if other is None else other)
            return tuple(f"{place}/{name}" for place in places)
        if f"/gcc/{self._triplet}/" in path:
            return (path.lstrip("/").replace("/gcc/", "/gcc-cross/", 1),)
        base = name.removeprefix(f"{self._triplet}-")
        return (f"usr/bin/{self._triplet}-{base}",)


def _program(
    reader: DirectoryReader, arch: Arch, origin: _Origin, path: GuestPath
) -> Program | None:
    role = origin.role(path)
    if role is None or path.endswith(".so"):
        return None
    try:
        entry = reader.lookup(path)
        if entry is None or not stat.S_ISREG(entry.mode) or not entry.mode & 0o111:
            return None
        if os.path.basename(entry.path) != os.path.basename(path):
            return None  # a link: the file itself is its own package's matter
        ident = sniff(reader.read(entry.path, SNIFF_BYTES))
        if ident is None or not arch.admits(ident):
            return None
        digest = file_digest(reader, entry.path)
    except TargetError:
        return None  # not readable by us: emulation may still be
    return Program(
        entry.path,
        digest,
        role,
        origin.wanted,
        origin.natives(path),
        origin.gcc,
        origin.language,
        origin.also,
    )


def file_digest(reader: DirectoryReader, path: GuestPath) -> str:
    """Return the SHA-256 of a regular file of the tree, in hex. Raises TargetError."""
    with reader.open(path) as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
        return digest.hexdigest()
