from __future__ import annotations

import struct

import pytest

from xbuild.binary.arch import (
    ARCHES,
    UNEMULATED,
    Arch,
    arch_named,
    arch_of,
    host_arch,
    plain_name,
    runs_natively32,
)
from xbuild.binary.elf import ET_EXEC, Ident
from xbuild.errors import EXIT_USAGE, UnknownArchitecture

EVERY = ARCHES + UNEMULATED
by_name = pytest.mark.parametrize("arch", EVERY, ids=lambda a: a.name)


def identity(arch: Arch) -> Ident:
    return Ident(arch.machine, arch.bits, arch.order, ET_EXEC, arch.flags_value)


@by_name
def test_an_architecture_is_found_by_its_own_name_and_header(arch: Arch) -> None:
    assert arch_named(arch.name) is arch
    assert arch_named(arch.name.upper()) is arch
    assert arch_of(identity(arch)) is arch


def test_no_header_belongs_to_two_architectures() -> None:
    pairs = [(a.name, b.name) for a in EVERY for b in EVERY if a is not b and b.admits(identity(a))]
    assert pairs == []


def test_names_are_unique_sorted_and_fit_for_files() -> None:
    names = [arch.name for arch in EVERY]
    assert len(set(names)) == len(names)
    assert [arch.name for arch in ARCHES] == sorted(arch.name for arch in ARCHES)
    assert all(name.replace("_", "").isalnum() for name in names)


@by_name
def test_rows_are_consistent(arch: Arch) -> None:
    assert arch.flags_value & ~arch.flags_mask == 0
    assert arch.machine_name.startswith("EM_")
    assert all(loader.startswith("/") for loader in arch.loaders)
    assert "linux" in arch.chost


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("arm64", "aarch64"),
        ("armhf", "arm"),
        ("armel", "arm"),
        ("armv7l", "arm"),
        ("amd64", "x86_64"),
        ("i686", "i386"),
        ("ppc64el", "ppc64le"),
        ("powerpc", "ppc"),
        ("loong64", "loongarch64"),
        ("mips", "mips"),
        ("mips64", "mips64"),
        ("parisc", "hppa"),
        ("x32", "x32"),
        ("386", "i386"),
        ("mips64le", "mips64el"),
        ("mipsle", "mipsel"),
        ("linux/amd64", "x86_64"),
        ("linux/amd64/v3", "x86_64"),
        ("linux/arm64/v8", "aarch64"),
        ("Linux/Arm/V7", "arm"),
        ("arm/v6", "arm"),
        ("linux/ppc64le", "ppc64le"),
    ],
)
def test_other_names_are_understood(name: str, expected: str) -> None:
    assert arch_named(name).name == expected


def test_a_platform_of_images_keeps_its_variant() -> None:
    names = ("linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "armhf", "a/b")
    assert [plain_name(name) for name in names] == [
        *("armv5tel", "armv6l", "armv7", "arm64", "armhf", "a/b")
    ]


@by_name
def test_what_people_call_it_is_understood(arch: Arch) -> None:
    assert arch_named(arch.common_name) is arch


def test_an_unknown_name_is_wrong_usage() -> None:
    with pytest.raises(UnknownArchitecture) as caught:
        arch_named("linux/nonsuch")
    assert caught.value.exit_status == EXIT_USAGE


def test_an_unknown_name_gets_close_matches() -> None:
    with pytest.raises(UnknownArchitecture, match="aarch46") as caught:
        arch_named("aarch46")
    assert "aarch64" in caught.value.hint


def test_an_unknown_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(UnknownArchitecture) as caught:
        arch_named("???")
    assert "riscv64" in caught.value.hint


def test_a_machine_outside_the_table_has_no_architecture() -> None:
    assert arch_of(Ident(83, 32, "little", ET_EXEC, 0)) is None


def test_mips_abis_differ_by_e_flags_alone() -> None:
    def named(flags: int) -> str | None:
        arch = arch_of(Ident(8, 32, "big", ET_EXEC, flags))
        return arch.name if arch else None

    assert named(0x70001007) == "mips"
    assert named(0x80000027) == "mipsn32"


def test_host_is_what_this_python_is_built_for() -> None:
    assert host_arch().bits == struct.calcsize("P") * 8
    assert host_arch() in ARCHES


def test_native_32_bit_candidates_share_the_byte_order() -> None:
    found = {a.name: native for a in ARCHES if (native := runs_natively32(a))}
    assert {name: native.name for name, native in found.items()} == {
        "x86_64": "i386",
        "aarch64": "arm",
        "aarch64_be": "armeb",
        "mips64": "mips",
        "mips64el": "mipsel",
        "ppc64": "ppc",
        "sparc64": "sparc",
    }
    for name, native in found.items():
        assert native.bits == 32
        assert native.order == arch_named(name).order
