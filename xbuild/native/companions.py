"""Libraries of the tree that decide what its tools write: libbfd is most of the assembler.

Found by DT_NEEDED from a program on. The C library and GCC's own run-time libraries are left out:
they are upgraded often, and what a compiler or an archiver writes is not theirs.
"""

from __future__ import annotations

import os

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from xbuild.errors import TargetError
from xbuild.record import GuestPath
from xbuild.tree.resolve import DirectoryReader

_LEFT_OUT = ("libc.so", "libm.so", "ld-linux", "ld64.so", "ld.so", "libgcc_s.so", "libstdc++.so")


class Companions:
    """Finds the libraries of programs in one tree; each file is read once."""

    def __init__(self, reader: DirectoryReader, triplet: str) -> None:
        self._reader = reader
        tops = ("/usr/lib", "/lib", "/usr/lib64", "/lib64")
        self._directories = (*(f"{top}/{triplet}" for top in tops[:2] if triplet), *tops)
        self._needed: dict[GuestPath, tuple[str, ...]] = {}

    def of(self, program: GuestPath) -> tuple[GuestPath, ...]:
        """Return the resolved paths of a program's libraries, all levels down, sorted."""
        found: set[GuestPath] = set()
        pending = [program]
        while pending:
            for name in self._names(pending.pop()):
                path = self._find(name)
                if path is not None and path not in found:
                    found.add(path)
                    pending.append(path)
        return tuple(sorted(found))

    def _names(self, path: GuestPath) -> tuple[str, ...]:
        if path not in self._needed:
            self._needed[path] = self._read(path)
        return self._needed[path]

    def _read(self, path: GuestPath) -> tuple[str, ...]:
        try:
            with self._reader.open(path) as file:
                dynamic = ELFFile(file).get_section_by_name(".dynamic")
                if not isinstance(dynamic, DynamicSection):
                    return ()
                tags = dynamic.iter_tags("DT_NEEDED")
                names = tuple(str(getattr(tag, "needed", "")) for tag in tags)
        except (TargetError, ELFError, OSError, ValueError):
            return ()
        return tuple(name for name in names if not name.startswith(_LEFT_OUT))

    def _find(self, name: str) -> GuestPath | None:
        for directory in self._directories:
            try:
                return self._reader.resolve(GuestPath(os.path.join(directory, name)))
            except TargetError:
                continue
        return None
