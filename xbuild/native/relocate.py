"""Lay programs of this host out in a set's root, so that they run at INSIDE within any tree.

A program names the set's own loader and looks for libraries in the set alone; the loader reads
neither the tree's cache nor its list of preloaded libraries; the C library finds its character
sets in the set. Time zones, locales and users stay the tree's: they are at the same paths.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from xbuild.errors import DamagedElf, ProviderUnsuitable
from xbuild.native.elf_patch import ElfPatch
from xbuild.record import HostPath
from xbuild.toolset.manifest import INSIDE

LOADER = "ld.so"
LIBRARIES = "lib"
GCONV = "gconv"
PLUGIN = "liblto_plugin.so"
_LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
_TRIPLETS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
# The C library's modules that read /etc/passwd and /etc/group: see nsswitch.conf(5).
_OF_USERS = ("libnss_files.so.2", "libnss_compat.so.2")
# Of equal length each: the C library counts them when it is compiled.
_OF_LOADER = (
    (b"/etc/ld.so.preload\0", b"/run/xbuild/.none\0\0"),
    (b"/etc/ld.so.cache\0", b"/run/xbuild/.nil\0"),
)


class Layout:
    """A set's root being filled from ``unpacked``, a tree of this host's packages.

    ``machine`` is the host's name in ``binary.arch``. Raises ProviderUnsuitable for a program
    that cannot be relocated, OSError for a disk that is full.
    """

    def __init__(self, unpacked: HostPath, root: HostPath, machine: str) -> None:
        self._unpacked = unpacked
        self._root = root
        self._loader = _LOADERS[machine]
        self._directories = tuple(
            f"{top}/{name}"
            for name in (_TRIPLETS[machine], "")
            for top in ("usr/lib", "lib", "usr/lib64", "lib64")
        )
        self._libraries: set[str] = set()
        self._change: Callable[[str, bytes], bytes] = lambda _name, content: content

    def change_libraries(self, change: Callable[[str, bytes], bytes]) -> None:
        """Have libraries that are added from now on be what ``change`` makes of name and bytes."""
        self._change = change

    def has(self, path: str) -> bool:
        """Tell whether the packages have a program at ``path`` (no leading slash)."""
        return os.path.isfile(os.path.join(self._unpacked, path))

    def resolved(self, path: str) -> str:
        """Follow the symbolic links of the packages; the result is inside of them too."""
        for _ in range(8):
            place = os.path.join(self._unpacked, path)
            if not os.path.islink(place):
                break
            link = os.readlink(place)
            joined = link if link.startswith("/") else f"/{os.path.dirname(path)}/{link}"
            path = os.path.normpath(joined).lstrip("/")
        return path

    def read(self, path: str) -> bytes:
        """Return a program as the packages have it."""
        with open(os.path.join(self._unpacked, path), "rb") as file:
            return file.read()

    def add_base(self) -> None:
        """Add the loader, the C library, its modules for users, and its character sets."""
        loader = self._find_library(self._loader)
        content = self.read(loader)
        for old, new in _OF_LOADER:
            content = content.replace(old, new)
        self._write(LOADER, content)
        self._add_library("libc.so.6")
        for name in _OF_USERS:
            with contextlib.suppress(ProviderUnsuitable):
                self._add_library(name)
        self._add_character_sets()

    def _add_character_sets(self) -> None:
        """Add modules of iconv(3) and their lists, but no cache: it says where they were."""
        found = (f"{directory}/gconv" for directory in self._directories)
        source = next((path for path in found if self._is_directory(path)), None)
        lists = () if source is None else (source, f"{source}/gconv-modules.d")
        for directory in filter(self._is_directory, lists):
            for name in sorted(os.listdir(os.path.join(self._unpacked, directory))):
                path = f"{directory}/{name}"
                if self.has(path) and name != "gconv-modules.cache":
                    self._write(f"{GCONV}{path.removeprefix(source or '')}", self.read(path))

    def _is_directory(self, path: str) -> bool:
        return os.path.isdir(os.path.join(self._unpacked, path))

    def add_program(
        self,
        path: str,
        *,
        replacements: tuple[tuple[bytes, bytes], ...] = (),
        words: tuple[tuple[str, str], ...] = (),
        plugins: tuple[str, ...] = (),
        shim: str = "",
        adapt: Callable[[ElfPatch], None] | None = None,
    ) -> str:
        """Add one program with its libraries; return its path in the root.

        ``replacements`` are made in its strings, ``words`` repointed, ``plugins`` (paths in the
        root) loaded with it, ``shim`` before all else, and what ``adapt`` changes comes last.
        Raises ProviderUnsuitable.
        """
        try:
            patch = ElfPatch(self.read(path))
            libraries, places = patch.needed, patch.library_path
            if patch.interpreter is not None:
                patch.set_interpreter(f"{INSIDE}/{LOADER}")
                patch.set_library_path(f"{INSIDE}/{LIBRARIES}")
            for plugin in plugins:
                patch.add_needed(f"{INSIDE}/{plugin}")
            if shim:
                patch.add_needed_first(f"{INSIDE}/{shim}")
            if replacements:
                patch.replace_strings(replacements)
            for old, new in words:
                patch.repoint_string(old.encode(), new.encode())
            if adapt is not None:
                adapt(patch)
            content = patch.finish()
        except DamagedElf as error:
            raise ProviderUnsuitable(f"Cannot relocate {path}: {error.message}") from error
        for name in libraries:
            self._add_library(name, places)
        self._write(path, content)
        return path

    def add_plugin(self, path: str, alias: str, number: int) -> str:
        """Add a copy of the compiler's LTO plugin that goes by the name ``alias`` once loaded.

        What loads it then has dlopen(alias) answered with the copy: the loader compares names
        with DT_SONAME of what is loaded before it opens a file (_dl_map_object in dl-load.c).
        """
        patch = ElfPatch(self.read(path))
        for name in patch.needed:
            self._add_library(name)
        patch.set_soname(alias)
        return self._write(f"plugin/{number}/{PLUGIN}", patch.finish())

    def add_shim(self, name: str, content: bytes) -> str:
        """Add a library of our own, which needs the C library alone; return its path."""
        return self._write(f"{LIBRARIES}/{name}", content)

    def _add_library(self, name: str, places: tuple[str, ...] = ()) -> None:
        """Add a library and what it needs, looked for in ``places`` (of DT_RUNPATH), too."""
        if name in self._libraries or name == self._loader:
            return
        path = self._find_library(name, places)
        self._libraries.add(name)
        content = self._change(name, self.read(path))
        if name == "libc.so.6":
            content = self._with_own_gconv(content)
        self._write(f"{LIBRARIES}/{name}", content)
        for needed in ElfPatch(content).needed:
            self._add_library(needed, places)

    def _with_own_gconv(self, content: bytes) -> bytes:
        for directory in self._directories:
            old = f"/{directory}/gconv".encode()
            padding = len(old) - len(f"{INSIDE}/{GCONV}")
            if padding >= 0:
                content = content.replace(old, f"{INSIDE}{'/' * padding}/{GCONV}".encode())
        return content

    def _find_library(self, name: str, places: tuple[str, ...] = ()) -> str:
        named = (place.lstrip("/") for place in places if place.startswith("/"))
        for directory in (*self._directories, *named):
            path = self.resolved(f"{directory}/{name}")
            if self.has(path):
                return path
        raise ProviderUnsuitable(f"Cannot relocate native tools: their packages lack {name}")

    def add_file(self, path: str, content: bytes) -> str:
        """Add a program as it is; return its path in the root."""
        return self._write(path, content)

    def _write(self, path: str, content: bytes) -> str:
        place = os.path.join(self._root, path)
        os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
        with open(place, "wb") as file:
            file.write(content)
        os.chmod(place, 0o755)
        return path
