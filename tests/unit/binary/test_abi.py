from __future__ import annotations

import struct
import sys

import pytest

from tests.unit.binary.conftest import ElfMaker
from tests.unit.binary.sections import (
    PT_GNU_PROPERTY,
    PT_MIPS_ABIFLAGS,
    SHT_GNU_ATTRIBUTES,
    SHT_MIPS_ABIFLAGS,
    SHT_PROC_ATTRIBUTES,
    abi_of,
    abiflags,
    attributes,
)
from xbuild.binary.abi import Abi, read_abi
from xbuild.binary.arch import ARCHES, host_arch
from xbuild.binary.elf import PT_INTERP
from xbuild.binary.write import tiny_program

# Arm


def arm(elf: ElfMaker, tags: dict[int, int | str], flags: int = 0x05000000) -> Abi:
    section = (SHT_PROC_ATTRIBUTES, attributes("aeabi", tags))
    return abi_of(elf(machine=40, bits=32, flags=flags, sections=[section]))


def test_debian_armhf(elf: ElfMaker) -> None:
    tags: dict[int, int | str] = {5: "7-A", 6: 10, 7: ord("A"), 8: 1, 9: 2, 10: 4, 28: 1}
    abi = arm(elf, tags, 0x05000400)
    assert (abi.name, abi.float_abi, abi.level) == ("EABI5", "hard", "armv7-a")
    assert (abi.debian, abi.chost) == ("armhf", "armv7a-unknown-linux-gnueabihf")
    assert abi.features == ("vfpv3-d16",)
    assert abi.cpu is None


def test_debian_armel(elf: ElfMaker) -> None:
    abi = arm(elf, {5: "5TE", 6: 4, 8: 1, 9: 1}, 0x05000200)
    assert (abi.float_abi, abi.level, abi.debian) == ("soft", "armv5te", "armel")
    assert abi.chost == "armv5tel-softfloat-linux-gnueabi"


def test_raspbian_is_armhf_of_armv6(elf: ElfMaker) -> None:
    abi = arm(elf, {5: "6", 6: 6, 10: 2, 28: 1})
    assert (abi.level, abi.debian) == ("armv6", "armhf")
    assert abi.chost == "armv6j-unknown-linux-gnueabihf"


@pytest.mark.parametrize(
    ("tag", "level"), [(2, "armv4t"), (4, "armv5te"), (9, "armv6k"), (10, "armv7"), (14, "armv8-a")]
)
def test_arm_levels(elf: ElfMaker, tag: int, level: str) -> None:
    assert arm(elf, {6: tag}).level == level


def test_neon_is_a_feature_not_a_float_abi(elf: ElfMaker) -> None:
    abi = arm(elf, {6: 10, 7: ord("A"), 10: 5, 12: 2})
    assert abi.features == ("vfpv4", "neon")
    assert abi.float_abi == "soft"
    assert abi.chost == "armv7a-softfp-linux-gnueabi"


@pytest.mark.parametrize(
    ("flags", "expected"), [(0x05000400, "hard"), (0x05000200, "soft"), (0x05000000, None)]
)
def test_arm_float_is_in_e_flags_when_sections_are_stripped(
    elf: ElfMaker, flags: int, expected: str | None
) -> None:
    assert abi_of(elf(machine=40, bits=32, flags=flags)).float_abi == expected


def test_arm_float_is_in_the_loaders_name_when_nothing_else_tells(elf: ElfMaker) -> None:
    def named(loader: bytes) -> str | None:
        content = elf(machine=40, bits=32, flags=5 << 24, segments=[(PT_INTERP, loader)])
        return abi_of(content).float_abi

    assert named(b"/lib/ld-linux-armhf.so.3\0") == "hard"
    assert named(b"/lib/ld-musl-armhf.so.1\0") == "hard"
    assert named(b"/lib/ld-linux.so.3\0") == "soft"


def test_old_abi_and_big_endian_arm(elf: ElfMaker) -> None:
    assert abi_of(elf(machine=40, bits=32, flags=0)).name == "OABI"
    abi = abi_of(elf(machine=40, bits=32, order="big", flags=0x05800400))
    assert abi.features == ("be8",)
    assert abi.chost == "armeb-unknown-linux-gnueabihf"


# MIPS


def mips(elf: ElfMaker, *, flags: int, bits: int = 32, part: bytes = b"") -> Abi:
    segments = [(PT_MIPS_ABIFLAGS, part)] if part else []
    return abi_of(elf(machine=8, bits=bits, flags=flags, segments=segments))


@pytest.mark.parametrize(
    ("bits", "flags", "name", "level"),
    [
        (32, 0x70001007, "o32", "mips32r2"),
        (32, 0x00000007, "o32", "mips1"),
        (32, 0x80000027, "n32", "mips64r2"),
        (64, 0x80000007, "n64", "mips64r2"),
        (64, 0x20000006, "n64", "mips3"),
        (32, 0x20002000, "o64", "mips3"),
        (32, 0x50003000, "eabi32", "mips32"),
        (64, 0x20004000, "eabi64", "mips3"),
        (32, 0xF0001007, "o32", None),
    ],
)
def test_mips_abis_by_e_flags(
    elf: ElfMaker, bits: int, flags: int, name: str, level: str | None
) -> None:
    abi = mips(elf, flags=flags, bits=bits)
    assert (abi.name, abi.level) == (name, level)


def test_debian_mipsel(elf: ElfMaker) -> None:
    abi = mips(elf, flags=0x70001007, part=abiflags(32, 2, 5))
    assert (abi.name, abi.level, abi.float_abi) == ("o32", "mips32r2", "hard")
    assert abi.features == ("fpxx",)
    assert (abi.debian, abi.cpu) == ("mipsel", None)


def test_abiflags_count_as_a_section_too(elf: ElfMaker) -> None:
    section = (SHT_MIPS_ABIFLAGS, abiflags(64, 1, 3, order="big"))
    abi = abi_of(elf(machine=8, order="big", flags=0x60000007, sections=[section]))
    assert (abi.name, abi.level, abi.float_abi) == ("n64", "mips64", "soft")


def test_old_mips_float_is_in_gnu_attributes(elf: ElfMaker) -> None:
    section = (SHT_GNU_ATTRIBUTES, attributes("gnu", {4: 3}))
    abi = abi_of(elf(machine=8, bits=32, flags=0x50001007, sections=[section]))
    assert abi.float_abi == "soft"
    assert abi.chost == "mipsel-softfloat-linux-gnu"


@pytest.mark.parametrize(
    ("bits", "flags", "debian", "chost"),
    [
        (32, 0x90001407, "mipsr6el", "mipsisa32r6el-unknown-linux-gnu"),
        (32, 0xA0000427, "mipsn32r6el", "mipsisa64r6el-unknown-linux-gnu"),
        (64, 0xA0000407, "mips64r6el", "mipsisa64r6el-unknown-linux-gnu"),
    ],
)
def test_mips_r6_has_names_of_its_own_and_qemu_sees_it(
    elf: ElfMaker, bits: int, flags: int, debian: str, chost: str
) -> None:
    abi = mips(elf, flags=flags, bits=bits)
    assert (abi.debian, abi.chost) == (debian, chost)
    assert "nan2008" in abi.features
    assert abi.cpu is None


@pytest.mark.parametrize(
    ("bits", "flags", "ases", "cpu"),
    [
        (32, 0x70001007, 2, "74Kf"),
        (32, 0x70001407, 0x200, None),
        (64, 0x80000007, 1, "mips64dspr2"),
        (64, 0x80000007, 0x200, "Loongson-3A4000"),
        (64, 0x808B0007, 0, "Octeon68XX"),
        (32, 0x808B0027, 0, "Octeon68XX"),
        (64, 0x20A10007, 0, "Loongson-2F"),
        (64, 0x80A20007, 0, "Loongson-3A1000"),
        (64, 0xA0000407, 0x200, None),
    ],
)
def test_mips_extensions_need_a_processor_that_has_them(
    elf: ElfMaker, bits: int, flags: int, ases: int, cpu: str | None
) -> None:
    release = 6 if flags >> 28 in (9, 10) else 2
    part = abiflags(32 if flags >> 28 in (7, 9) else 64, release, 1, ases=ases)
    assert mips(elf, flags=flags, bits=bits, part=part).cpu == cpu


# PowerPC


@pytest.mark.parametrize(
    ("order", "flags", "loader", "name"),
    [
        ("big", 1, b"", "ELFv1"),
        ("big", 2, b"", "ELFv2"),
        ("little", 2, b"", "ELFv2"),
        ("big", 0, b"/lib64/ld64.so.1\0", "ELFv1"),
        ("big", 0, b"/lib/ld-musl-powerpc64.so.1\0", "ELFv2"),
        ("big", 0, b"/lib64/ld64.so.2\0", "ELFv2"),
        ("little", 0, b"", "ELFv2"),
    ],
)
def test_ppc64_elf_versions(
    elf: ElfMaker, order: str, flags: int, loader: bytes, name: str
) -> None:
    segments = [(PT_INTERP, loader)] if loader else []
    assert abi_of(elf(machine=21, order=order, flags=flags, segments=segments)).name == name


def test_ppc_vector_units_need_a_processor_that_has_them(elf: ElfMaker) -> None:
    def ppc(tags: dict[int, int | str]) -> Abi:
        section = (SHT_GNU_ATTRIBUTES, attributes("gnu", tags, "big"))
        return abi_of(elf(machine=20, bits=32, order="big", sections=[section]))

    assert (ppc({4: 1}).float_abi, ppc({4: 1}).cpu) == ("hard", None)
    assert ppc({4: 1, 8: 2}).cpu == "7447a"
    assert (ppc({4: 2, 8: 3}).cpu, ppc({4: 2, 8: 3}).debian) == ("e500v2", "powerpcspe")


# RISC-V


@pytest.mark.parametrize(
    ("bits", "flags", "name", "float_abi", "features"),
    [
        (64, 5, "lp64d", "hard", ("rvc",)),
        (64, 0, "lp64", "soft", ()),
        (64, 3, "lp64f", "single", ("rvc",)),
        (64, 6, "lp64q", "hard", ()),
        (32, 4, "ilp32d", "hard", ()),
        (32, 9, "ilp32e", "soft", ("rvc", "rve")),
        (64, 0x15, "lp64d", "hard", ("rvc", "tso")),
    ],
)
def test_riscv_abis_by_e_flags(
    elf: ElfMaker, bits: int, flags: int, name: str, float_abi: str, features: tuple[str, ...]
) -> None:
    abi = abi_of(elf(machine=243, bits=bits, flags=flags))
    assert (abi.name, abi.float_abi, abi.features) == (name, float_abi, features)
    assert abi.debian == ("riscv64" if name == "lp64d" else None)


@pytest.mark.parametrize(
    ("level", "cpu"),
    [
        ("rv64i2p1_m2p0_a2p1_f2p2_d2p2_c2p0_zicsr2p0", None),
        ("rv64imafdc_zicsr_zve32x", "rv64,v=true,vext_spec=v1.0"),
        ("rv64i2p1_m2p0_v1p0_zve32f1p0", "rv64,v=true,vext_spec=v1.0"),
        ("rv64gcv", "rv64,v=true,vext_spec=v1.0"),
        ("rv64gc_svinval1p0_xventanacondops", None),
    ],
)
def test_riscv_vectors_need_a_processor_that_has_them(
    elf: ElfMaker, level: str, cpu: str | None
) -> None:
    section = (SHT_PROC_ATTRIBUTES, attributes("riscv", {4: 16, 5: level}))
    abi = abi_of(elf(machine=243, flags=5, sections=[section]))
    assert (abi.level, abi.cpu) == (level, cpu)


# others


def test_x32_is_named(elf: ElfMaker) -> None:
    abi = abi_of(elf(machine=62, bits=32))
    assert (abi.name, abi.debian) == ("x32", "x32")


@pytest.mark.parametrize(
    ("bits", "level"), [(0, None), (1, "x86-64"), (3, "x86-64-v2"), (15, "x86-64-v4")]
)
def test_x86_levels_are_in_a_note(elf: ElfMaker, bits: int, level: str | None) -> None:
    entry = struct.pack("<IIIxxxx", 0xC0008002, 4, bits)
    note = struct.pack("<III4s", 4, len(entry), 5, b"GNU\0") + entry
    assert abi_of(elf(machine=62, segments=[(PT_GNU_PROPERTY, note)])).level == level


@pytest.mark.parametrize(
    ("machine", "bits", "order", "flags", "name", "level", "float_abi"),
    [
        (258, 64, "little", 0x43, "lp64d", None, "hard"),
        (258, 64, "little", 0x41, "lp64s", None, "soft"),
        (42, 32, "little", 9, None, "sh4", None),
        (42, 32, "little", 17, None, "sh4a", "soft"),
        (15, 32, "big", 0x214, None, "2.0", None),
        (4, 32, "big", 0, None, "68020", None),
        (4, 32, "big", 0x01000000, None, "68000", None),
        (4, 32, "big", 0x42, None, "cf", "hard"),
        (164, 32, "little", 0x68, None, "v68", None),
        (183, 64, "little", 0, None, None, None),
        (22, 64, "big", 0, None, None, None),
    ],
)
def test_other_architectures_by_e_flags(
    elf: ElfMaker,
    machine: int,
    bits: int,
    order: str,
    flags: int,
    name: str | None,
    level: str | None,
    float_abi: str | None,
) -> None:
    abi = abi_of(elf(machine=machine, bits=bits, order=order, flags=flags))
    assert (abi.name, abi.level, abi.float_abi) == (name, level, float_abi)


def test_an_unknown_machine_has_an_identity_and_nothing_else(elf: ElfMaker) -> None:
    abi = abi_of(elf(machine=83, bits=32))
    assert (abi.ident.machine, abi.arch, abi.debian, abi.chost) == (83, None, None, None)


@pytest.mark.parametrize("arch", ARCHES, ids=lambda a: a.name)
def test_every_tiny_program_has_an_abi(arch: object) -> None:
    content = tiny_program(arch, b"x")  # type: ignore[arg-type]  # parametrize loses the type
    abi = abi_of(content)
    assert abi.arch is arch
    assert abi.chost is not None


def test_this_python_has_an_abi() -> None:
    with open(sys.executable, "rb") as file:
        abi = read_abi(file)
        assert abi.arch is host_arch()
        assert file.read(0) == b""  # still open
