"""Compilers that are cross compilers as they are: found, told what to compile for, kept apart."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.crafted import Layout, elf, make_tree
from xbuild.binary.arch import arch_named
from xbuild.errors import DamagedElf, ProviderUnsuitable
from xbuild.native.installed import read_database
from xbuild.native.launchers import go_launcher, rustc_launcher
from xbuild.native.llvm import is_llvm, retarget
from xbuild.native.programs import Program, find_programs
from xbuild.toolset.manifest import INSIDE
from xbuild.tree.resolve import DirectoryReader

PACKAGES = {
    "clang-19": (
        "1:19.1.7-3+b1",
        ["/usr/lib/llvm-19/bin/clang", "/usr/lib/llvm-19/bin/clang-tidy"],
    ),
    "clang-17": ("1:17.0.6-22", ["/usr/lib/llvm-17/bin/clang"]),
    "libllvm19": ("1:19.1.7-3+b1", []),
    "libclang-cpp19": ("1:19.1.7-3+b1", []),
    "libllvm17": ("1:17.0.6-22", []),
    "rustc": ("1.85.1+dfsg1-1", ["/usr/bin/rustc", "/usr/bin/rustdoc"]),
    "libstd-rust-1.85": ("1.85.1+dfsg1-1", []),
    "golang-1.24-go": (
        "1.24.4-1",
        ["/usr/lib/go-1.24/bin/go", "/usr/lib/go-1.24/pkg/tool/linux_arm64/compile"],
    ),
    "clang-format-19": ("1:19.1.7-3+b1", ["/usr/lib/llvm-19/bin/clang-format"]),
}


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Program]:
    paragraphs = (
        f"Package: {name}\nStatus: install ok installed\nArchitecture: arm64\nVersion: {version}"
        for name, (version, _) in PACKAGES.items()
    )
    layout: Layout = {
        path.lstrip("/"): elf("arm64") for _, all_ in PACKAGES.values() for path in all_
    }
    layout["var/lib/dpkg/status"] = "\n\n".join(paragraphs).encode()
    for name, (_, paths) in PACKAGES.items():
        layout[f"var/lib/dpkg/info/{name}.list"] = "\n".join(paths).encode()
    with DirectoryReader(make_tree(tmp_path, layout)) as reader:
        database = read_database(reader)
        assert database is not None
        programs = find_programs(reader, database, arch_named("arm64"), "x86_64")
        return {program.path: program for program in programs}


def test_compilers_are_found_and_their_relatives_are_not(found: dict[str, Program]) -> None:
    assert set(found) == {
        "/usr/bin/rustc",
        "/usr/lib/go-1.24/pkg/tool/linux_arm64/compile",
        "/usr/lib/llvm-17/bin/clang",
        "/usr/lib/llvm-19/bin/clang",
    }


def test_libraries_that_do_the_work_are_of_the_tree_s_revision(found: dict[str, Program]) -> None:
    clang = found["/usr/lib/llvm-19/bin/clang"]
    assert {(each.name, each.revision) for each in clang.also} == {
        ("libllvm19", "1:19.1.7-3+b1"),
        ("libclang-cpp19", "1:19.1.7-3+b1"),
    }
    rustc = {each.name for each in found["/usr/bin/rustc"].also}
    assert rustc == {"libllvm17", "libllvm19", "libstd-rust-1.85"}


def test_tools_of_go_are_in_a_directory_named_for_the_host(found: dict[str, Program]) -> None:
    compiler = found["/usr/lib/go-1.24/pkg/tool/linux_arm64/compile"]
    assert compiler.natives == ("usr/lib/go-1.24/pkg/tool/linux_amd64/compile",)


class Launched:
    """A launcher's script, which finds programs that print their name and what they were told."""

    def __init__(self, place: Path, script: str) -> None:
        self._script = place / "script"
        self._script.write_text(script.replace(INSIDE, str(place)))
        for name in ("native", "emulated"):
            (place / name).write_text(f'#!/bin/sh\necho {name} "$@" $GOARCH $GOARM64\n')
            (place / name).chmod(0o755)

    def __call__(self, *arguments: str, **environment: str) -> str:
        return subprocess.run(
            ["/bin/sh", self._script, *arguments],
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()


@pytest.fixture
def rustc(tmp_path: Path) -> Launched:
    target = "aarch64-unknown-linux-gnu"
    return Launched(tmp_path, rustc_launcher("sh", "native", "emulated", target))


@pytest.mark.parametrize(
    "arguments",
    [
        "main.rs",
        "-L {empty}",
        "-L dependency={empty} x.rs",
        "-L native={macros}",
        "-L{empty}",
        "-L",
    ],
)
def test_rustc_is_native_where_no_macro_can_be_met(
    rustc: Launched, tmp_path: Path, arguments: str
) -> None:
    words = _with_directories(tmp_path, arguments)
    told = "--sysroot=/usr --target=aarch64-unknown-linux-gnu"
    assert rustc(*words) == f"native {told} {' '.join(words)}"


@pytest.mark.parametrize(
    "arguments",
    [
        "-L {macros} main.rs",
        "-L dependency={macros}",
        "-Ldependency={macros}",
        "x -L{macros} y",
        "-L {empty} -L all={macros}",
        "-L crate={macros}",
    ],
)
def test_rustc_is_emulated_where_macros_may_be(
    rustc: Launched, tmp_path: Path, arguments: str
) -> None:
    words = _with_directories(tmp_path, arguments)
    assert rustc(*words) == f"emulated {' '.join(words)}"


def _with_directories(place: Path, arguments: str) -> list[str]:
    empty, macros = place / "an empty one", place / "macros"
    empty.mkdir()
    macros.mkdir()
    (empty / "libplain.rlib").touch()
    (macros / "libderive-1f.so").touch()
    return [word.format(empty=empty, macros=macros) for word in arguments.split(" ")]


def test_tools_of_go_know_the_tree_s_machine_unless_told(tmp_path: Path) -> None:
    script = go_launcher("sh", "native", {"GOARCH": "arm64", "GOARM64": "v8.0"})
    launched = Launched(tmp_path, script)
    assert launched("-V=full") == "native -V=full arm64 v8.0"
    assert launched(GOARCH="", GOARM64="v9.0") == "native arm64 v9.0"
    assert launched(GOARCH="riscv64") == "native riscv64 v8.0"


@pytest.mark.parametrize(
    "machine", [{}, {"GOARM": "7"}, {"GOARCH": "arm64; rm"}, {"GOARCH": "arm64", "PATH": "/x"}]
)
def test_words_of_a_tree_s_go_that_are_none_are_refused(machine: dict[str, str]) -> None:
    with pytest.raises(ProviderUnsuitable):
        go_launcher("sh", "native", machine)


@pytest.mark.parametrize("target", ["", "aarch64 linux", "x\nrm", "$(x)"])
def test_words_of_a_tree_s_rustc_that_are_none_are_refused(target: str) -> None:
    with pytest.raises(ProviderUnsuitable):
        rustc_launcher("sh", "native", "emulated", target)


@pytest.mark.parametrize("triple", ["", "aarch64", "a-b-c-d-e", "x-y-z\n"])
def test_library_is_not_given_what_names_no_target(triple: str) -> None:
    with pytest.raises(DamagedElf, match="names no target"):
        retarget(b"", triple)


def test_library_without_that_function_is_refused() -> None:
    with open("/bin/true", "rb") as file, pytest.raises(DamagedElf, match="getDefaultTargetTriple"):
        retarget(file.read(), "aarch64-unknown-linux-gnu")
    with pytest.raises(DamagedElf):
        retarget(b"no library", "aarch64-unknown-linux-gnu")


def test_llvm_is_known_by_its_file_s_name() -> None:
    assert is_llvm("libLLVM.so.19.1")
    assert is_llvm("libLLVM-17.so.1")
    assert not is_llvm("libclang-cpp.so.19.1")
