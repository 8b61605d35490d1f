"""Which programs of a distribution's packages native ones may stand in for, and how far.

Pure: a table by package and program. What is not in it stays emulated. A level here is the most
that a proof can give; ``exact`` becomes so by the corpus alone.
"""

from __future__ import annotations

import re

from xbuild.native.gcc_driver import EMULATE_FOR, EMULATE_FOR_LANGUAGE
from xbuild.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.toolset.manifest import Kind, Level

OF_LONG_DOUBLE = "its long double is of another precision than the target's"
_MACHINE = "it tells the machine"
_USERS = "names of users may come from modules of the target's C library"

COMPILERS = frozenset(
    ("cc1", "cc1plus", "cc1obj", "cc1objplus", "f951", "lto1", "d21", "go1", "gnat1", "cc1gm2")
)
LINKERS = frozenset(("collect2", "lto-wrapper"))
BINUTILS = frozenset(
    (
        *("ar", "nm", "ranlib", "strip", "objcopy", "objdump", "readelf", "size", "strings"),
        *("addr2line", "c++filt", "elfedit"),
    )
)
LINKERS_OF_BINUTILS = frozenset(("ld", "ld.bfd", "ld.gold"))
LOADS_PLUGIN = LINKERS_OF_BINUTILS | {"ar", "nm", "ranlib", "strip", "objcopy"}
"""Programs of binutils that load the compiler's LTO plugin."""
# They write owners and modes of files, which under fakeroot are others.
_SEES_OWNERS = frozenset(("ar", "ranlib", "strip", "objcopy", "gcc-ar", "gcc-ranlib"))


class Role(Record):
    """What a program is for, the most that it may be used at, and why not more.

    ``emulate_for`` is a tool's. One that ``prints_numbers`` reads them by strtold(3) and does
    nothing but print them.
    """

    kind: Kind
    level: Level = "exact"
    reason: str = ""
    drops_preload: bool = False
    emulate_for: tuple[str, ...] = ()
    prints_numbers: bool = False


_DRIVER = Role("driver", drops_preload=True, emulate_for=EMULATE_FOR)
# A plugin is the target's code; what is offloaded, a cross compiler may be built without; with -v,
# each names directories that are not there in its own way.
_COMPILER = Role(
    "compiler", drops_preload=True, emulate_for=("-fplugin", "-fopenmp", "-fopenacc", "-v")
)

# Programs of packages that are the same for all architectures, by package.
_PLAIN: dict[str, Role] = {
    "bash": Role("shell", prints_numbers=True),
    "bzip2": Role("archiver"),
    "coreutils": Role("coreutils"),
    "dash": Role("shell"),
    "diffutils": Role("text"),
    "findutils": Role("coreutils"),
    "gawk": Role("text"),
    "grep": Role("text"),
    "gzip": Role("archiver"),
    "m4": Role("text"),
    "make": Role("make"),
    "mawk": Role("text"),
    "patch": Role("text"),
    "sed": Role("text"),
    "tar": Role("archiver"),
    "xz-utils": Role("archiver"),
    "zstd": Role("archiver"),
}
_BY_PROGRAM: dict[str, tuple[Level, str]] = {
    **dict.fromkeys(("uname", "arch"), ("none", _MACHINE)),
    "numfmt": ("fast", OF_LONG_DOUBLE),
    **dict.fromkeys(("id", "groups", "whoami", "who", "users", "pinky"), ("none", _USERS)),
    "stdbuf": ("none", "it preloads a library of the target's"),
    **dict.fromkeys(("chcon", "runcon", "hostid", "logname"), ("none", "no build needs it")),
}
# Where these calculate in long double (numbers of 15 digits are exact), or load the target's code:
# a file of gawk's may ask for that.
_EMULATE_FOR: dict[str, tuple[str, ...]] = {
    "gawk": (
        *("-f", "-i", "-l", "-E", "-W", "--f", "--i", "--l", "--e", "*-[a-zA-Z]f*"),
        *("*@load*", "*@include*"),
    ),
    "od": ("*L*", "*f16*"),
    "printf": ("*%*[aefgAEFG]*",),
    "seq": ("*[!-0-9w]*", f"*{'?' * 16}"),
    "sort": ("*g*",),
}
_OF_LONG = frozenset(("od",))
_NARROW: dict[str, str] = {
    "xz-utils": "how it splits what it compresses depends on the size of an address",
    "zstd": "how it compresses depends on the processor's vectors",
}
_WITHOUT_VECTORS = frozenset(("riscv64", "armhf", "armel", "mipsel", "mips64el", "s390x"))


def role_of_plain(package: str, program: str, *, bits: int, architecture: str) -> Role | None:
    """Return the role of a program whose package bears the same name everywhere.

    ``bits`` and ``architecture`` (Debian's name) are the tree's. None for what stays emulated and
    needs no word.
    """
    role = _PLAIN.get(package)
    if role is None:
        return None
    if program in _OF_LONG and bits == 32:
        return Role(role.kind, "fast", "its long is longer than the target's")
    if program in _EMULATE_FOR:
        return replace(role, emulate_for=_EMULATE_FOR[program])
    if program in _BY_PROGRAM:
        level, reason = _BY_PROGRAM[program]
        return Role(role.kind, level, reason)
    narrow = package in _NARROW and (bits == 32 or architecture in _WITHOUT_VECTORS)
    return Role(role.kind, "fast", _NARROW[package]) if narrow else role


def role_of_compiler(program: str) -> Role | None:
    """Return the role of a program of a GCC package, by its name without triplet and version."""
    if program in COMPILERS:
        return _COMPILER
    if program in LINKERS:
        return Role("linker", drops_preload=True)
    driver = re.fullmatch(r"(gcc|g\+\+|cpp|gfortran|gcc-(?:ar|nm|ranlib))(-\d+)?", program)
    if driver:
        special = EMULATE_FOR_LANGUAGE.get(driver[1], ())
        return replace(
            _DRIVER,
            emulate_for=(*EMULATE_FOR, *special),
            drops_preload=driver[1] not in _SEES_OWNERS,
        )
    return None


def role_of_binutils(program: str) -> Role | None:
    """Return the role of a program of binutils, by its name without triplet."""
    if program == "as":
        return Role("assembler", drops_preload=True)
    if program in LINKERS_OF_BINUTILS:
        # LLVM's plugin is the target's code.
        return Role("linker", drops_preload=True, emulate_for=("*LLVMgold.so",))
    if program not in BINUTILS:
        return None
    return Role("binutils", drops_preload=program not in _SEES_OWNERS)
