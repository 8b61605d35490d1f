"""Compilers that are cross compilers as they are: clang, rustc, the tools of Go.

The package for this host bears the same name as the tree's; what it compiles for is the one thing
to set right: in LLVM's library for clang (``llvm``), by a launcher for the others (``launchers``).
Pure: a table by package and program, as in ``roles``.
"""

from __future__ import annotations

import re

from xbuild.native.roles import Role
from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from xbuild.native.installed import Database

    Family = Literal["llvm", "rust", "go"]

GO_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Go's names of the hosts that native tools are made for, by ``binary.arch``'s."""

_PACKAGE = re.compile(
    r"(?P<llvm>clang-(?P<version>\d+))|(?P<rust>rustc)|(?P<go>golang-\d+(?:\.\d+)*-go)"
)
_GO_TOOLS = re.compile(r"/pkg/tool/linux_(?P<machine>[a-z0-9]+)/")

# "native" is the processor of the machine that asks; plugins are the target's code; a file of
# options may hide any of these.
_CLANG = Role(
    "compiler",
    drops_preload=True,
    emulate_for=(
        *("*=native", "-fplugin", "-fpass-plugin", "-load", "-plugin", "@", "--config"),
        *("-frecord-command-line", "-frecord-gcc-switches", "-grecord", "-no-canonical-prefixes"),
    ),
)
# What it says of itself names the machine; procedural macros, which it loads, are the target's code
# (of libraries in its search path the launcher knows). A target that is named is named once only.
_RUSTC = Role(
    "compiler",
    drops_preload=True,
    emulate_for=(
        *("-v", "-V", "--version", "--verbose", "--print", "--help", "-h", "-Z"),
        *("--target", "--sysroot", "proc-macro", "*=proc-macro", "*.so", "*=native", "@"),
    ),
)
_GO = {
    "asm": Role("assembler", drops_preload=True, emulate_for=("@",)),
    "buildid": Role("binutils", drops_preload=True),
    "cgo": Role("compiler", drops_preload=True),
    "compile": Role("compiler", drops_preload=True, emulate_for=("@",)),
    "link": Role("linker", drops_preload=True, emulate_for=("@",)),
    "pack": Role("binutils", drops_preload=True),
}


class Language(Record):
    """What a package of the tree is: ``companions`` are packages whose revision counts as well."""

    family: Family
    companions: tuple[str, ...] = ()


def language_of_package(name: str, database: Database) -> Language | None:
    """Return which of these compilers a package of the tree has; None for all other packages."""
    found = _PACKAGE.fullmatch(name)
    if found is None:
        return None
    if found["go"]:
        return Language("go")
    if found["rust"]:
        pattern = r"libllvm\d+|libstd-rust-\d+(?:\.\d+)*"
        return Language("rust", _named(database, pattern))
    return Language("llvm", _named(database, rf"lib(?:llvm|clang-cpp){found['version']}"))


def _named(database: Database, pattern: str) -> tuple[str, ...]:
    return tuple(p.name for p in database.packages if re.fullmatch(pattern, p.name))


def role_in(language: Language, path: str) -> Role | None:
    """Return the role of the program at ``path`` in the tree; None for what stays emulated."""
    directory, _, name = path.rpartition("/")
    match language.family:
        case "llvm":
            return _CLANG if name == "clang" and "/llvm-" in directory else None
        case "rust":
            return _RUSTC if path == "/usr/bin/rustc" else None
        case "go":
            return _GO.get(name) if _GO_TOOLS.search(path) else None


def native_of_language(path: str, machine: str) -> str:
    """Return where the package for this host, a ``machine``, has the program of the tree's."""
    place = _GO_TOOLS.sub(f"/pkg/tool/linux_{GO_MACHINES[machine]}/", path)
    return place.lstrip("/")


def is_of_language(path: str) -> bool:
    """Tell whether a tool of a set, by its path in the tree, is one of these compilers' own."""
    return path == "/usr/bin/rustc" or "/llvm-" in path or _GO_TOOLS.search(path) is not None
