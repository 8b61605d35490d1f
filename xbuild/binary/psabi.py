"""Decide a program's ABI from the evidence: float, ISA level, and the -cpu that qemu needs.

Scope: pure rules, one function per family. Sources: each architecture's psABI and binutils'
include/elf/*.h for numbers; dpkg's tupletable and Gentoo's profiles for names. What the default
processors of qemu-user 7.2 cannot run was found by running instructions: they choose by e_flags
where MIPS R6, NaN2008 and microMIPS are concerned, and know AVX2, SVE, POWER9 and z15.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from xbuild.binary.arch import arch_of
from xbuild.binary.attributes import read_attributes
from xbuild.errors import DamagedElf
from xbuild.record import Record, replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from xbuild.binary.arch import Arch
    from xbuild.binary.elf import Ident, Program

    FloatAbi = Literal["hard", "single", "soft"]


class Evidence(Record):
    """The parts of a file that speak of its ABI; empty where it has none."""

    attributes: bytes = b""  # .ARM.attributes or .riscv.attributes
    gnu: bytes = b""  # .gnu.attributes
    abiflags: bytes = b""  # .MIPS.abiflags
    isa_needed: int = 0  # GNU_PROPERTY_X86_ISA_1_NEEDED


class Abi(Record):
    """What a program expects of processor and libraries; None where the file does not tell.

    ``name`` is None where the architecture has one ABI only. ``float_abi`` is how arguments are
    passed: in double or single registers, or as integers. ``level`` is the least processor as
    gcc's -march spells it. ``cpu`` is for qemu-user's -cpu, None where its default will do, or
    where no processor of its would. ``debian`` and ``chost`` narrow the architecture's.
    """

    ident: Ident
    arch: Arch | None
    name: str | None = None
    float_abi: FloatAbi | None = None
    level: str | None = None
    features: tuple[str, ...] = ()
    cpu: str | None = None
    debian: str | None = None
    chost: str | None = None


def judge(program: Program, evidence: Evidence) -> Abi:
    """Decide the ABI of a program; raises DamagedElf for evidence that contradicts itself."""
    ident = program.ident
    arch = arch_of(ident)
    if arch is None:
        return Abi(ident, None)
    abi = Abi(ident, arch, debian=arch.debian, chost=arch.chost)
    rule = _RULES.get(arch.machine_name)
    return rule(abi, program, evidence) if rule else abi


_ARM_LEVELS = {  # Tag_CPU_arch
    1: "armv4", 2: "armv4t", 3: "armv5t", 4: "armv5te", 5: "armv5tej", 6: "armv6", 7: "armv6kz",
    8: "armv6t2", 9: "armv6k", 10: "armv7", 11: "armv6-m", 12: "armv6s-m", 13: "armv7e-m",
    14: "armv8-a", 15: "armv8-r", 16: "armv8-m.base", 17: "armv8-m.main", 18: "armv8.1-a",
    19: "armv8.2-a", 20: "armv8.3-a", 21: "armv8.1-m.main", 22: "armv9-a",
}  # fmt: skip
_ARM_FPUS = {  # Tag_FP_arch
    1: "vfpv1", 2: "vfpv2", 3: "vfpv3", 4: "vfpv3-d16", 5: "vfpv4", 6: "vfpv4-d16",
    7: "fp-armv8", 8: "fp-armv8-d16",
}  # fmt: skip
_EF_ARM_ABI_FLOAT_SOFT, _EF_ARM_ABI_FLOAT_HARD, _EF_ARM_BE8 = 0x200, 0x400, 0x00800000


def _arm(abi: Abi, program: Program, evidence: Evidence) -> Abi:
    tags = read_attributes(evidence.attributes, "aeabi", abi.ident.order)
    version = abi.ident.flags >> 24
    level = _ARM_LEVELS.get(_count(tags, 6))
    profile = _count(tags, 7)
    if level == "armv7" and profile:
        level += "-" + chr(profile).lower()
    float_abi = _arm_float(tags, program)
    features = [_ARM_FPUS.get(_count(tags, 10)), "neon" if _count(tags, 12) else None]
    features.append("be8" if abi.ident.flags & _EF_ARM_BE8 else None)
    changed = replace(
        abi,
        name=f"EABI{version}" if version else "OABI",
        float_abi=float_abi,
        level=level,
        features=_present(*features),
    )
    return _arm_named(changed) if version else replace(changed, debian="arm")


def _arm_float(tags: dict[int, int | str], program: Program) -> FloatAbi | None:
    """Ask Tag_ABI_VFP_args (0 when left out), else e_flags, else the dynamic loader's name."""
    flags = program.ident.flags
    if tags:
        passed = _count(tags, 28)
        if passed in (0, 1):
            return "hard" if passed else "soft"
    if flags & _EF_ARM_ABI_FLOAT_HARD:
        return "hard"
    if flags & _EF_ARM_ABI_FLOAT_SOFT:
        return "soft"
    if program.interpreter and not tags:
        return "hard" if "hf.so" in program.interpreter else "soft"
    return None


def _arm_named(abi: Abi) -> Abi:
    hard = abi.float_abi == "hard"
    if abi.ident.order == "big":
        return replace(abi, chost="armeb-unknown-linux-gnueabi" + ("hf" if hard else ""))
    level = abi.level or ""
    lowest = "v7" if hard or level else "v5"
    newer = next((n for n in ("v6", "v5", "v4") if level.startswith("arm" + n)), lowest)
    if hard:
        machine = "armv6j" if newer == "v6" else "armv7a"
        return replace(abi, debian="armhf", chost=machine + "-unknown-linux-gnueabihf")
    if abi.float_abi is None:
        return abi
    machine = {
        "v4": "armv4tl-softfloat",
        "v5": "armv5tel-softfloat",
        "v6": "armv6j-softfp",
        "v7": "armv7a-softfp",
    }[newer]
    return replace(abi, debian="armel", chost=machine + "-linux-gnueabi")


_MIPS_LEVELS = (
    "mips1", "mips2", "mips3", "mips4", "mips5", "mips32", "mips64", "mips32r2", "mips64r2",
    "mips32r6", "mips64r6",
)  # fmt: skip
_MIPS_ABIS = {0: "o32", 0x1000: "o32", 0x2000: "o64", 0x3000: "eabi32", 0x4000: "eabi64"}
_MIPS_MACHINES = {  # EF_MIPS_MACH
    0x8B: ("octeon", "Octeon68XX"),
    0x8D: ("octeon2", "Octeon68XX"),
    0x8E: ("octeon3", "Octeon68XX"),
    0x92: ("r5900", None),
    0xA0: ("loongson2e", "Loongson-2E"),
    0xA1: ("loongson2f", "Loongson-2F"),
    0xA2: ("loongson3a", "Loongson-3A1000"),
}
_MIPS_FLOATS: dict[int, tuple[FloatAbi | None, str | None]] = {  # Val_GNU_MIPS_ABI_FP_*
    1: ("hard", None),
    2: ("single", None),
    3: ("soft", None),
    4: ("hard", "fp64"),  # the old way
    5: ("hard", "fpxx"),
    6: ("hard", "fp64"),
    7: ("hard", "fp64a"),
}
_MIPS_ASES = {1: "dsp", 2: "dspr2", 0x200: "msa", 0x2000: "dspr3"}
_EF_MIPS_ABI2, _EF_MIPS_ABI, _EF_MIPS_NAN2008 = 0x20, 0xF000, 0x400
_EF_MIPS_MICROMIPS, _EF_MIPS_M16 = 0x02000000, 0x04000000
_ABIFLAGS_BYTES = 24


def _mips(abi: Abi, _program: Program, evidence: Evidence) -> Abi:
    flags = abi.ident.flags
    order = abi.ident.order
    level, fp, ases = _mips_level(flags), 0, 0
    if evidence.abiflags:
        if len(evidence.abiflags) < _ABIFLAGS_BYTES:
            raise DamagedElf(f".MIPS.abiflags has {len(evidence.abiflags)} bytes")
        isa, revision, fp = evidence.abiflags[2], evidence.abiflags[3], evidence.abiflags[7]
        level = f"mips{isa}" + (f"r{revision}" if revision > 1 else "")
        ases = int.from_bytes(evidence.abiflags[12:16], order)
    elif evidence.gnu:
        fp = _count(read_attributes(evidence.gnu, "gnu", order), 4)
    float_abi, registers = _MIPS_FLOATS.get(fp, (None, None))
    machine, _ = _MIPS_MACHINES.get(flags >> 16 & 0xFF, (None, None))
    features = _present(
        registers,
        "nan2008" if flags & _EF_MIPS_NAN2008 else None,
        "micromips" if flags & _EF_MIPS_MICROMIPS else None,
        "mips16" if flags & _EF_MIPS_M16 else None,
        *(name for bit, name in _MIPS_ASES.items() if ases & bit),
        machine,
    )
    named = replace(abi, name=_mips_name(abi.ident), level=level, features=features)
    return _mips_cpu(_mips_named(replace(named, float_abi=float_abi)))


def _mips_level(flags: int) -> str | None:
    number = flags >> 28
    return _MIPS_LEVELS[number] if number < len(_MIPS_LEVELS) else None


def _mips_name(ident: Ident) -> str | None:
    if ident.flags & _EF_MIPS_ABI2 and ident.bits == 32:
        return "n32"
    if ident.bits == 64 and not ident.flags & _EF_MIPS_ABI:
        return "n64"
    return _MIPS_ABIS.get(ident.flags & _EF_MIPS_ABI)


def _mips_named(abi: Abi) -> Abi:
    """Name R6, an architecture of its own to dpkg and config.sub, and soft float."""
    el = "el" if abi.ident.order == "little" else ""
    if abi.level and abi.level.endswith("r6"):
        stem = {"n32": "mipsn32r6", "n64": "mips64r6"}.get(abi.name or "", "mipsr6")
        bits = "32" if abi.name == "o32" else "64"
        return replace(abi, debian=stem + el, chost=f"mipsisa{bits}r6{el}-unknown-linux-gnu")
    if abi.float_abi == "soft" and abi.name == "o32":
        return replace(abi, chost=f"mips{el}-softfloat-linux-gnu")
    return abi


def _mips_cpu(abi: Abi) -> Abi:
    """Name the processor for extensions; R6, NaN2008 and microMIPS qemu sees in e_flags itself.

    A processor of the other NaN encoding is refused by qemu, so none is named for MSA on o32:
    P5600 has it, and knows NaN2008 alone.
    """
    if abi.level and abi.level.endswith("r6"):
        return abi
    _, cpu = _MIPS_MACHINES.get(abi.ident.flags >> 16 & 0xFF, (None, None))
    if abi.name == "o32":
        cpu = "74Kf" if {"dsp", "dspr2"} & set(abi.features) else None
    elif "msa" in abi.features:
        cpu = "Loongson-3A4000"
    elif cpu is None and {"dsp", "dspr2"} & set(abi.features):
        cpu = "mips64dspr2"
    return replace(abi, cpu=cpu)


def _ppc(abi: Abi, _program: Program, evidence: Evidence) -> Abi:
    tags = read_attributes(evidence.gnu, "gnu", abi.ident.order)
    floats: dict[int, FloatAbi] = {1: "hard", 2: "soft", 3: "single"}
    vector = _count(tags, 8)  # Tag_GNU_Power_ABI_Vector
    changed = replace(abi, float_abi=floats.get(_count(tags, 4) & 3))
    if vector == 2:
        return replace(changed, features=("altivec",), cpu="7447a")
    if vector == 3:
        chost = "powerpc-unknown-linux-gnuspe"
        names = replace(changed, debian="powerpcspe", chost=chost)
        return replace(names, name="spe", features=("spe",), cpu="e500v2")
    return changed


def _ppc64(abi: Abi, program: Program, _evidence: Evidence) -> Abi:
    """Take 0, "unspecified", for what the loader or else the byte order suggests."""
    version = abi.ident.flags & 3
    if version == 0:
        loader = program.interpreter or ""
        newer = abi.ident.order == "little" or "ld64.so.2" in loader or "musl" in loader
        version = 2 if newer else 1
    return replace(abi, name=f"ELFv{version}" if version < 3 else None)


_EF_RISCV_RVC, _EF_RISCV_FLOAT_ABI, _EF_RISCV_RVE, _EF_RISCV_TSO = 1, 6, 8, 16


def _riscv(abi: Abi, _program: Program, evidence: Evidence) -> Abi:
    flags = abi.ident.flags
    tags = read_attributes(evidence.attributes, "riscv", abi.ident.order)
    level = tags.get(5)  # Tag_RISCV_arch
    is_embedded = bool(flags & _EF_RISCV_RVE)
    floats: tuple[FloatAbi, ...] = ("soft", "single", "hard", "hard")
    choice = (flags & _EF_RISCV_FLOAT_ABI) >> 1
    suffix = "e" if is_embedded else ("", "f", "d", "q")[choice]
    name = ("lp64" if abi.ident.bits == 64 else "ilp32") + suffix
    features = _present(
        "rvc" if flags & _EF_RISCV_RVC else None,
        "rve" if is_embedded else None,
        "tso" if flags & _EF_RISCV_TSO else None,
    )
    vector = isinstance(level, str) and _has_vector(level)
    return replace(
        abi,
        name=name,
        float_abi=floats[choice],
        level=level if isinstance(level, str) else None,
        features=(*features, "vector") if vector else features,
        cpu=f"rv{abi.ident.bits},v=true,vext_spec=v1.0" if vector else None,
        debian=abi.debian if name == "lp64d" else None,
    )


def _has_vector(level: str) -> bool:
    """Find v or zve* in an arch string such as ``rv64i2p1_m2p0_v1p0_zicsr2p0`` or ``rv64gcv``."""
    first, *others = level[4:].split("_")
    return "v" in first or any(name == "v" or re.match(r"v\d|zve", name) for name in others)


def _x86(abi: Abi, _program: Program, evidence: Evidence) -> Abi:
    levels = ((8, "x86-64-v4"), (4, "x86-64-v3"), (2, "x86-64-v2"), (1, "x86-64"))
    level = next((name for bit, name in levels if evidence.isa_needed & bit), None)
    is_x32 = abi.arch is not None and abi.arch.name == "x32"
    return replace(abi, name="x32" if is_x32 else None, level=level)


def _loongarch(abi: Abi, _program: Program, _evidence: Evidence) -> Abi:
    variants: dict[int, tuple[str, FloatAbi]] = {
        1: ("s", "soft"),
        2: ("f", "single"),
        3: ("d", "hard"),
    }
    suffix, float_abi = variants.get(abi.ident.flags & 7, ("", None))
    name = ("lp64" if abi.ident.bits == 64 else "ilp32") + suffix
    debian = abi.debian if name == "lp64d" else None
    return replace(abi, name=name if suffix else None, float_abi=float_abi, debian=debian)


def _sh(abi: Abi, _program: Program, _evidence: Evidence) -> Abi:
    levels = {2: "sh2", 3: "sh3", 8: "sh3e", 9: "sh4", 12: "sh4a", 16: "sh4", 17: "sh4a"}
    number = abi.ident.flags & 0x1F
    is_soft = number in (3, 16, 17)  # EF_SH3, EF_SH4_NOFPU, EF_SH4A_NOFPU
    return replace(abi, level=levels.get(number), float_abi="soft" if is_soft else None)


def _parisc(abi: Abi, _program: Program, _evidence: Evidence) -> Abi:
    level = {0x20B: "1.0", 0x210: "1.1", 0x214: "2.0"}.get(abi.ident.flags & 0xFFFF)
    if abi.ident.bits == 64 or level not in ("1.1", "2.0"):
        return replace(abi, level=level)
    return replace(abi, level=level, chost=f"hppa{level}-unknown-linux-gnu")


def _m68k(abi: Abi, _program: Program, _evidence: Evidence) -> Abi:
    flags = abi.ident.flags
    if flags & 0x02000000:
        return replace(abi, level="fidoa")
    if flags & 0x00810000 == 0x00810000:
        return replace(abi, level="cpu32")
    if flags & 0xFF:
        return replace(abi, level="cf", float_abi="hard" if flags & 0x40 else "soft")
    return replace(abi, level="68000" if flags & 0x01000000 else "68020")


def _hexagon(abi: Abi, _program: Program, _evidence: Evidence) -> Abi:
    version = abi.ident.flags & 0x7FFF
    return replace(abi, level=f"v{version:x}" if version >= 0x60 else None)


_RULES: dict[str, Callable[[Abi, Program, Evidence], Abi]] = {
    "EM_ARM": _arm,
    "EM_MIPS": _mips,
    "EM_PPC": _ppc,
    "EM_PPC64": _ppc64,
    "EM_RISCV": _riscv,
    "EM_386": _x86,
    "EM_X86_64": _x86,
    "EM_LOONGARCH": _loongarch,
    "EM_SH": _sh,
    "EM_PARISC": _parisc,
    "EM_68K": _m68k,
    "EM_HEXAGON": _hexagon,
}


def _count(tags: dict[int, int | str], tag: int) -> int:
    """Return a numeric attribute; 0 when left out, as every such ABI has it."""
    value = tags.get(tag, 0)
    return value if isinstance(value, int) else 0


def _present(*names: str | None) -> tuple[str, ...]:
    return tuple(name for name in names if name)
