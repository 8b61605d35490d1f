"""The table of architectures: one row for each Linux target that qemu-user emulates.

Scope: names and header values, and the lookups over them. Values come from the ELF gABI's machine
registry and elf.h; names from qemu's configs/targets, dpkg's cputable and tupletable, Gentoo's
profiles, glibc's shlib-versions and musl's configure. Variants within a row (hard float, ISA
levels) are ``xbuild.binary.abi``'s.
"""

from __future__ import annotations

from xbuild.binary.elf import SNIFF_BYTES, Ident, sniff
from xbuild.errors import UnknownArchitecture, UnknownArchitectureName
from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from xbuild.record import ByteOrder

EF_MIPS_ABI2 = 0x20  # n32 has it, o32 has it not: arch/mips/include/asm/elf.h


class Arch(Record):
    """An architecture as qemu-user divides them.

    ``name`` is qemu's and the stem of the binfmt/ file; ``flags_value`` is what e_flags must be
    under ``flags_mask``; ``debian`` is the usual one of Debian's names, None where dpkg has none;
    ``loaders`` are PT_INTERP values, glibc's first; ``aliases`` are further names people use.
    """

    name: str
    machine: int
    machine_name: str
    bits: Literal[32, 64]
    order: ByteOrder
    debian: str | None
    chost: str
    uname: str
    loaders: tuple[str, ...] = ()
    flags_mask: int = 0
    flags_value: int = 0
    aliases: tuple[str, ...] = ()
    is_emulated: bool = True

    @property
    def common_name(self) -> str:
        """What a person calls it: Debian's name, unless that depends on the ABI; else qemu's."""
        return self.debian if self.debian and self.name not in _OF_SEVERAL_ABIS else self.name

    def admits(self, ident: Ident) -> bool:
        """Tell whether a file of this identity is of this architecture, whatever its type."""
        return (
            self.machine == ident.machine
            and self.bits == ident.bits
            and self.order == ident.order
            and ident.flags & self.flags_mask == self.flags_value
        )


# dpkg has several names for the first, armel and armhf; the last is of the row sparc as well.
_OF_SEVERAL_ABIS = frozenset(("arm", "armeb", "sparc32plus"))

# fmt: off
ARCHES: tuple[Arch, ...] = (
    Arch("aarch64", 183, "EM_AARCH64", 64, "little", "arm64", "aarch64-unknown-linux-gnu",
         "aarch64",
         ("/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-aarch64.so.1", "/system/bin/linker64"),
         aliases=("armv8", "armv8-a")),
    Arch("aarch64_be", 183, "EM_AARCH64", 64, "big", None, "aarch64_be-unknown-linux-gnu",
         "aarch64_be",
         ("/lib/ld-linux-aarch64_be.so.1", "/lib/ld-musl-aarch64_be.so.1"), aliases=("arm64be",)),
    Arch("alpha", 0x9026, "EM_ALPHA", 64, "little", "alpha", "alpha-unknown-linux-gnu", "alpha",
         ("/lib/ld-linux.so.2",)),
    Arch("arm", 40, "EM_ARM", 32, "little", "armhf", "armv7a-unknown-linux-gnueabihf", "armv7l",
         ("/lib/ld-linux-armhf.so.3", "/lib/ld-linux.so.3", "/lib/ld-musl-armhf.so.1",
         "/lib/ld-musl-arm.so.1", "/lib/ld-uClibc.so.0", "/lib/ld-linux.so.2",
         "/system/bin/linker"),
         aliases=("armel", "armv5tel", "armv5tejl", "armv6l", "armv7", "armv7a", "armv8l")),
    Arch("armeb", 40, "EM_ARM", 32, "big", "armeb", "armeb-unknown-linux-gnueabi", "armv7b",
         ("/lib/ld-linux-armhf.so.3", "/lib/ld-linux.so.3", "/lib/ld-musl-armeb.so.1",
         "/lib/ld-musl-armebhf.so.1"), aliases=("armv5teb", "armv6b")),
    Arch("cris", 76, "EM_CRIS", 32, "little", None, "cris-unknown-linux-gnu", "cris",
         ("/lib/ld.so.1", "/lib/ld-uClibc.so.0")),
    Arch("hexagon", 164, "EM_HEXAGON", 32, "little", None, "hexagon-unknown-linux-musl", "hexagon",
         ("/lib/ld-musl-hexagon.so.1",)),
    Arch("hppa", 15, "EM_PARISC", 32, "big", "hppa", "hppa-unknown-linux-gnu", "parisc",
         ("/lib/ld.so.1",), aliases=("hppa1.1", "hppa2.0")),
    Arch("i386", 3, "EM_386", 32, "little", "i386", "i686-pc-linux-gnu", "i686",
         ("/lib/ld-linux.so.2", "/lib/ld-musl-i386.so.1", "/lib/ld-uClibc.so.0",
         "/system/bin/linker"), aliases=("i486", "i586", "x86", "386")),
    Arch("loongarch64", 258, "EM_LOONGARCH", 64, "little", "loong64",
         "loongarch64-unknown-linux-gnu", "loongarch64",
         ("/lib64/ld-linux-loongarch-lp64d.so.1", "/lib64/ld-linux-loongarch-lp64s.so.1",
         "/lib/ld-musl-loongarch64.so.1"), aliases=("loong",)),
    Arch("m68k", 4, "EM_68K", 32, "big", "m68k", "m68k-unknown-linux-gnu", "m68k",
         ("/lib/ld.so.1", "/lib/ld-musl-m68k.so.1", "/lib/ld-uClibc.so.0")),
    Arch("microblaze", 189, "EM_MICROBLAZE", 32, "big", None, "microblaze-unknown-linux-gnu",
         "microblaze",
         ("/lib/ld.so.1", "/lib/ld-musl-microblaze.so.1")),
    Arch("microblazeel", 189, "EM_MICROBLAZE", 32, "little", None, "microblazeel-unknown-linux-gnu",
         "microblaze",
         ("/lib/ld.so.1", "/lib/ld-musl-microblazeel.so.1")),
    Arch("mips", 8, "EM_MIPS", 32, "big", "mips", "mips-unknown-linux-gnu", "mips",
         ("/lib/ld.so.1", "/lib/ld-linux-mipsn8.so.1", "/lib/ld-musl-mips.so.1",
         "/lib/ld-musl-mips-sf.so.1", "/lib/ld-uClibc.so.0"), EF_MIPS_ABI2, 0,
         aliases=("mipseb", "mipsr6")),
    Arch("mips64", 8, "EM_MIPS", 64, "big", "mips64", "mips64-unknown-linux-gnu", "mips64",
         ("/lib64/ld.so.1", "/lib64/ld-linux-mipsn8.so.1", "/lib/ld-musl-mips64.so.1",
         "/lib/ld64-uClibc.so.0"), aliases=("mips64eb", "mips64r6")),
    Arch("mips64el", 8, "EM_MIPS", 64, "little", "mips64el", "mips64el-unknown-linux-gnu", "mips64",
         ("/lib64/ld.so.1", "/lib64/ld-linux-mipsn8.so.1", "/lib/ld-musl-mips64el.so.1",
         "/lib/ld64-uClibc.so.0"), aliases=("mips64r6el", "mips64le")),
    Arch("mipsel", 8, "EM_MIPS", 32, "little", "mipsel", "mipsel-unknown-linux-gnu", "mips",
         ("/lib/ld.so.1", "/lib/ld-linux-mipsn8.so.1", "/lib/ld-musl-mipsel.so.1",
         "/lib/ld-musl-mipsel-sf.so.1", "/lib/ld-uClibc.so.0"), EF_MIPS_ABI2, 0,
         aliases=("mipsr6el", "mipsle")),
    Arch("mipsn32", 8, "EM_MIPS", 32, "big", "mipsn32", "mips64-unknown-linux-gnu", "mips64",
         ("/lib32/ld.so.1", "/lib32/ld-linux-mipsn8.so.1", "/lib/ld-musl-mipsn32.so.1"),
         EF_MIPS_ABI2, EF_MIPS_ABI2, aliases=("mipsn32r6",)),
    Arch("mipsn32el", 8, "EM_MIPS", 32, "little", "mipsn32el", "mips64el-unknown-linux-gnu",
         "mips64",
         ("/lib32/ld.so.1", "/lib32/ld-linux-mipsn8.so.1", "/lib/ld-musl-mipsn32el.so.1"),
         EF_MIPS_ABI2, EF_MIPS_ABI2, aliases=("mipsn32r6el",)),
    Arch("nios2", 113, "EM_ALTERA_NIOS2", 32, "little", "nios2", "nios2-unknown-linux-gnu", "nios2",
         ("/lib/ld-linux-nios2.so.1",)),
    Arch("or1k", 92, "EM_OPENRISC", 32, "big", "or1k", "or1k-unknown-linux-gnu", "openrisc",
         ("/lib/ld-linux-or1k.so.1", "/lib/ld-musl-or1k.so.1")),
    Arch("ppc", 20, "EM_PPC", 32, "big", "powerpc", "powerpc-unknown-linux-gnu", "ppc",
         ("/lib/ld.so.1", "/lib/ld-musl-powerpc.so.1", "/lib/ld-musl-powerpc-sf.so.1",
         "/lib/ld-uClibc.so.0"), aliases=("powerpcspe",)),
    Arch("ppc64", 21, "EM_PPC64", 64, "big", "ppc64", "powerpc64-unknown-linux-gnu", "ppc64",
         ("/lib64/ld64.so.1", "/lib64/ld64.so.2", "/lib/ld-musl-powerpc64.so.1"),
         aliases=("powerpc64",)),
    Arch("ppc64le", 21, "EM_PPC64", 64, "little", "ppc64el", "powerpc64le-unknown-linux-gnu",
         "ppc64le",
         ("/lib64/ld64.so.2", "/lib/ld-musl-powerpc64le.so.1"), aliases=("powerpc64le",)),
    Arch("riscv32", 243, "EM_RISCV", 32, "little", None, "riscv32-unknown-linux-gnu", "riscv32",
         ("/lib/ld-linux-riscv32-ilp32d.so.1", "/lib/ld-linux-riscv32-ilp32.so.1",
         "/lib/ld-musl-riscv32.so.1")),
    Arch("riscv64", 243, "EM_RISCV", 64, "little", "riscv64", "riscv64-unknown-linux-gnu",
         "riscv64",
         ("/lib/ld-linux-riscv64-lp64d.so.1", "/lib/ld-linux-riscv64-lp64.so.1",
         "/lib/ld-musl-riscv64.so.1", "/system/bin/linker64")),
    Arch("s390x", 22, "EM_S390", 64, "big", "s390x", "s390x-ibm-linux-gnu", "s390x",
         ("/lib/ld64.so.1", "/lib/ld-musl-s390x.so.1")),
    Arch("sh4", 42, "EM_SH", 32, "little", "sh4", "sh4-unknown-linux-gnu", "sh4",
         ("/lib/ld-linux.so.2", "/lib/ld-musl-sh.so.1", "/lib/ld-uClibc.so.0"),
         aliases=("sh", "sh4a")),
    Arch("sh4eb", 42, "EM_SH", 32, "big", "sh4eb", "sh4eb-unknown-linux-gnu", "sh4eb",
         ("/lib/ld-linux.so.2", "/lib/ld-musl-sheb.so.1", "/lib/ld-uClibc.so.0"),
         aliases=("sheb",)),
    Arch("sparc", 2, "EM_SPARC", 32, "big", "sparc", "sparc-unknown-linux-gnu", "sparc",
         ("/lib/ld-linux.so.2", "/lib/ld-uClibc.so.0")),
    Arch("sparc32plus", 18, "EM_SPARC32PLUS", 32, "big", "sparc", "sparc-unknown-linux-gnu",
         "sparc",
         ("/lib/ld-linux.so.2",), aliases=("sparcv8plus",)),
    Arch("sparc64", 43, "EM_SPARCV9", 64, "big", "sparc64", "sparc64-unknown-linux-gnu", "sparc64",
         ("/lib64/ld-linux.so.2",), aliases=("sparcv9",)),
    Arch("x86_64", 62, "EM_X86_64", 64, "little", "amd64", "x86_64-pc-linux-gnu", "x86_64",
         ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1", "/lib/ld64-uClibc.so.0",
         "/system/bin/linker64"), aliases=("x86-64",)),
    Arch("xtensa", 94, "EM_XTENSA", 32, "little", None, "xtensa-unknown-linux-uclibc", "xtensa",
         ("/lib/ld-uClibc.so.0", "/lib/ld.so.1")),
    Arch("xtensaeb", 94, "EM_XTENSA", 32, "big", None, "xtensaeb-unknown-linux-uclibc", "xtensa",
         ("/lib/ld-uClibc.so.0", "/lib/ld.so.1")),
)

# Architectures that inspect can name although no qemu-user runs them.
UNEMULATED: tuple[Arch, ...] = (
    Arch("x32", 62, "EM_X86_64", 32, "little", "x32", "x86_64-pc-linux-gnux32", "x86_64",
         ("/libx32/ld-linux-x32.so.2", "/lib/ld-musl-x32.so.1"), is_emulated=False),
    Arch("aarch64_ilp32", 183, "EM_AARCH64", 32, "little", "arm64ilp32",
         "aarch64-unknown-linux-gnu_ilp32", "aarch64",
         ("/lib/ld-linux-aarch64_ilp32.so.1",), is_emulated=False),
    Arch("arc", 195, "EM_ARC_COMPACT2", 32, "little", "arc", "arc-unknown-linux-gnu", "arc",
         ("/lib/ld-linux-arc.so.2", "/lib/ld-uClibc.so.0"), is_emulated=False),
    Arch("csky", 252, "EM_CSKY", 32, "little", None, "csky-unknown-linux-gnuabiv2", "csky",
         ("/lib/ld-linux-cskyv2-hf.so.1", "/lib/ld-linux-cskyv2.so.1"), is_emulated=False),
    Arch("hppa64", 15, "EM_PARISC", 64, "big", None, "hppa64-unknown-linux-gnu", "parisc64",
         is_emulated=False),
    Arch("ia64", 50, "EM_IA_64", 64, "little", "ia64", "ia64-unknown-linux-gnu", "ia64",
         ("/lib/ld-linux-ia64.so.2",), is_emulated=False),
    Arch("loongarch32", 258, "EM_LOONGARCH", 32, "little", None, "loongarch32-unknown-linux-gnu",
         "loongarch32",
         ("/lib32/ld-linux-loongarch-ilp32d.so.1",), is_emulated=False),
    Arch("ppcle", 20, "EM_PPC", 32, "little", "powerpcel", "powerpcle-unknown-linux-gnu", "ppcle",
         ("/lib/ld-musl-powerpcle.so.1",), is_emulated=False),
    Arch("s390", 22, "EM_S390", 32, "big", "s390", "s390-ibm-linux-gnu", "s390",
         ("/lib/ld.so.1",), is_emulated=False),
    Arch("tilegx", 191, "EM_TILEGX", 64, "little", "tilegx", "tilegx-unknown-linux-gnu", "tilegx",
         ("/lib/ld.so.1",), is_emulated=False),
)
# fmt: on

_NATIVE_32 = {
    "x86_64": "i386",
    "aarch64": "arm",
    "aarch64_be": "armeb",
    "mips64": "mips",
    "mips64el": "mipsel",
    "ppc64": "ppc",
    "sparc64": "sparc",
}


# What images' platforms and GOARM call variants of "arm".
_ARM_VARIANTS = {"v5": "armv5tel", "v6": "armv6l", "v7": "armv7"}


def plain_name(name: str) -> str:
    """Return a name that may be an image's platform, such as linux/arm/v7, as others have it."""
    machine, slash, variant = name.lower().removeprefix("linux/").partition("/")
    if not slash or not variant.startswith("v"):
        return name.lower() if slash else machine
    return _ARM_VARIANTS.get(variant, machine) if machine == "arm" else machine


def arch_named(name: str) -> Arch:
    """Find a row by qemu's name, else Debian's, else ``uname -m`` or an alias, in any case.

    GOARCH and the platforms of images, such as linux/arm/v7, are such aliases. Raises
    UnknownArchitectureName with close matches in the hint.
    """
    wanted = plain_name(name)
    rows = ARCHES + UNEMULATED
    for names in (_own_name, _debian_name, _other_names):
        for arch in rows:
            if wanted in names(arch):
                return arch
    raise UnknownArchitectureName(f"Unknown architecture: {name!r}", _suggestion(wanted, rows))


def _own_name(arch: Arch) -> tuple[str, ...]:
    return (arch.name,)


def _debian_name(arch: Arch) -> tuple[str, ...]:
    return (arch.debian,) if arch.debian else ()


def _other_names(arch: Arch) -> tuple[str, ...]:
    return (arch.uname, *arch.aliases)


def _suggestion(wanted: str, rows: tuple[Arch, ...]) -> str:
    import difflib  # off the start path: only for the message

    known = {
        name for arch in rows for name in (arch.name, *_debian_name(arch), *_other_names(arch))
    }
    close = difflib.get_close_matches(wanted, sorted(known), n=4)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"known are {', '.join(arch.common_name for arch in rows)}"


def arch_of(ident: Ident) -> Arch | None:
    """Return the row of an ELF identity, whatever its type; None for machines not in the table."""
    for arch in ARCHES:
        if arch.machine == ident.machine and arch.admits(ident):
            return arch
    for arch in UNEMULATED:
        if arch.machine == ident.machine and arch.admits(ident):
            return arch
    return None


_host: Arch | None = None  # what this process is does not change


def host_arch() -> Arch:
    """Return the architecture of the running Python, from its own ELF header.

    Never uname: a 32-bit personality or a container changes what uname says. Raises
    UnknownArchitecture when the header is of no machine in the table.
    """
    global _host
    if _host is not None:
        return _host
    try:
        with open("/proc/self/exe", "rb") as program:
            ident = sniff(program.read(SNIFF_BYTES))
    except OSError as error:
        raise UnknownArchitecture(
            f"Cannot read this host's architecture from /proc/self/exe: {error.strerror}",
            "mount /proc first",
        ) from error
    arch = arch_of(ident) if ident is not None else None
    if arch is None:
        raise UnknownArchitecture(
            f"This host's own programs are of no known architecture: {ident}",
            "xbuild runs on hosts of the architectures in docs/interpreters.md alone",
        )
    _host = arch
    return arch


def runs_natively32(host: Arch) -> Arch | None:
    """Return the 32-bit architecture that the host's processors may run, of its byte order.

    A candidate only: whether this kernel and processor do is found by running a program.
    """
    name = _NATIVE_32.get(host.name)
    return arch_named(name) if name else None
