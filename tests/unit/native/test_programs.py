"""Programs are found by the package that owns them, whatever else is on PATH."""

from __future__ import annotations

from pathlib import Path

from tests.crafted import Layout, Link, elf, make_tree
from xbuild.binary.arch import arch_named
from xbuild.native.installed import read_database
from xbuild.native.programs import Program, find_programs
from xbuild.tree.resolve import DirectoryReader

PACKAGES = {
    "gcc-13-aarch64-linux-gnu": ("gcc-13", "13.3.0-1"),
    "gcc-14-aarch64-linux-gnu": ("gcc-14", "14.2.0-19"),
    "cpp-14": ("gcc-14", "14.2.0-19"),
    "libgcc-14-dev": ("gcc-14", "14.2.0-19"),
    "binutils-aarch64-linux-gnu": ("binutils", "2.44-3"),
    "coreutils": ("coreutils", "9.7-3"),
    "colorgcc": ("colorgcc", "1.3"),
    "ccache": ("ccache", "4.11"),
}
OWNED = {
    "gcc-13-aarch64-linux-gnu": ["/usr/bin/aarch64-linux-gnu-gcc-13"],
    "gcc-14-aarch64-linux-gnu": ["/usr/bin/aarch64-linux-gnu-gcc-14", "/usr/bin/gcc"],
    "cpp-14": ["/usr/libexec/gcc/aarch64-linux-gnu/14/cc1"],
    "binutils-aarch64-linux-gnu": ["/usr/bin/aarch64-linux-gnu-as", "/usr/bin/as"],
    "coreutils": ["/usr/bin/uname", "/usr/bin/cat", "/usr/share/doc/coreutils/cat"],
    "colorgcc": ["/usr/bin/colorgcc"],
    "ccache": ["/usr/lib/ccache/gcc", "/usr/bin/ccache"],
}


def _found(place: Path, changes: Layout) -> dict[str, Program]:
    status = "\n\n".join(
        f"Package: {name}\nStatus: install ok installed\nArchitecture: arm64\n"
        f"Source: {source}\nVersion: {version}"
        for name, (source, version) in PACKAGES.items()
    )
    layout: Layout = {path.lstrip("/"): elf("arm64") for each in OWNED.values() for path in each}
    layout["var/lib/dpkg/status"] = status.encode()
    for name, paths in OWNED.items():
        layout[f"var/lib/dpkg/info/{name}.list"] = "\n".join(paths).encode()
    layout |= {
        "usr/bin/gcc": Link("aarch64-linux-gnu-gcc-14"),
        "usr/bin/as": Link("aarch64-linux-gnu-as"),
        "usr/bin/colorgcc": b"#!/usr/bin/perl\n",
        "usr/lib/ccache/gcc": Link("../../bin/ccache"),
        "usr/local/bin/gcc": Link("/usr/bin/colorgcc"),
        **changes,
    }
    arch = arch_named("arm64")
    with DirectoryReader(make_tree(place, layout)) as reader:
        database = read_database(reader)
        assert database is not None
        return {
            program.path: program for program in find_programs(reader, database, arch, "x86_64")
        }


def test_compilers_are_found_and_their_wrappers_are_not(tmp_path: Path) -> None:
    found = _found(tmp_path, {})
    assert set(found) == {
        "/usr/bin/aarch64-linux-gnu-as",
        "/usr/bin/aarch64-linux-gnu-gcc-13",
        "/usr/bin/aarch64-linux-gnu-gcc-14",
        "/usr/bin/cat",
        "/usr/bin/uname",
        "/usr/libexec/gcc/aarch64-linux-gnu/14/cc1",
    }
    assert found["/usr/bin/uname"].role.level == "none"


def test_each_version_comes_from_its_own_package(tmp_path: Path) -> None:
    found = _found(tmp_path, {})
    old, new = (found[f"/usr/bin/aarch64-linux-gnu-gcc-{n}"] for n in (13, 14))
    assert (old.gcc, old.wanted.name, old.wanted.revision) == (
        *("13", "gcc-13-aarch64-linux-gnu", "13.3.0-1"),
    )
    assert (new.gcc, new.wanted.revision) == ("14", "14.2.0-19")
    cc1 = found["/usr/libexec/gcc/aarch64-linux-gnu/14/cc1"]
    assert cc1.wanted.name == "cpp-14-aarch64-linux-gnu"
    assert cc1.natives == ("usr/libexec/gcc-cross/aarch64-linux-gnu/14/cc1",)


def test_a_program_that_was_diverted_by_a_script_is_left_alone(tmp_path: Path) -> None:
    found = _found(tmp_path, {"usr/bin/cat": b"#!/bin/sh\n"})
    assert "/usr/bin/cat" not in found


def test_a_program_of_another_architecture_is_left_alone(tmp_path: Path) -> None:
    found = _found(tmp_path, {"usr/bin/aarch64-linux-gnu-as": elf("riscv64")})
    assert "/usr/bin/aarch64-linux-gnu-as" not in found


def test_a_link_that_leads_out_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    found = _found(tmp_path, {"usr/bin/cat": Link("../../../../../../../bin/cat")})
    assert "/bin/cat" not in found
    assert "/usr/bin/cat" not in found
