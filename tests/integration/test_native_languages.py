"""clang, rustc and Go's tools run natively, and compile for the tree to the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.capability import require
from tests.native_trees import SUITE, CompilerTree, write_files
from tests.patience import WORK_S
from tests.runs import Runner
from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath
from xbuild.source.cache import cache_directory
from xbuild.source.debian import BASE_PACKAGES, fetch_debian_archive, unpack_tree

PACKAGES = (*BASE_PACKAGES, "clang", "rustc", "cargo", "golang-go", "libc6-dev")
# Of its own, as the set is large: what a session has proven the next one finds. So are packages:
# apt wants to be alone where it puts them.
CACHE_HOME = f"{cache_directory()}/test-languages-cache"
HELLO = (
    '#include <stdio.h>\n#include <math.h>\nint main(void) { return !printf("%f\\n", sin(0.7)); }\n'
)
CARGO = '[package]\nname = "app"\nversion = "1.0.0"\nedition = "2021"\n[dependencies]\n'
CRATE = '[package]\nname = "{0}"\nversion = "1.0.0"\nedition = "2021"\n'
MACRO = """\
use proc_macro::TokenStream;
#[proc_macro]
pub fn seven(_: TokenStream) -> TokenStream { "7".parse().unwrap() }
"""


@pytest.fixture(scope="module")
def path(place: HostPath) -> HostPath:
    """An arm64 tree, of whose GCC dpkg says nothing: it has tests, and a long proof, of its own."""
    try:
        archive = fetch_debian_archive("arm64", (SUITE,), PACKAGES, progress=lambda _t, _f: None)
    except MirrorUnavailable as error:
        require("mirror", False, error.message)
        raise
    tree = unpack_tree(archive, HostPath(f"{place}/languages"))
    for listed in Path(tree, "var/lib/dpkg/info").glob("*.list"):
        if listed.name.startswith(("gcc-", "cpp-", "g++-")):
            listed.unlink()
    return tree


@pytest.fixture
def tree(path: HostPath, root: Runner) -> CompilerTree:
    return CompilerTree(path, root, cache_home=CACHE_HOME)


@pytest.fixture
def work(tmp_path: Path) -> HostPath:
    return HostPath(str(tmp_path))


def test_compilers_are_proven_and_native(tree: CompilerTree) -> None:
    done = tree.runner.run(
        "--native", "--dry-run", "--json", tree.path, "true", env=tree.environment()
    )
    (step,) = [each for each in json.loads(done.stdout)["steps"] if each["step"] == "Substitute"]
    found = {os.path.basename(each["path"]): each["verdict"] for each in step["substitutions"]}
    compilers = ("clang", "rustc", "asm", "buildid", "cgo", "compile", "link", "pack")
    assert {name: found.get(name) for name in compilers} == dict.fromkeys(compilers, "identical")


CLANG = {
    "one job and several": "clang -O2 -g -c a.c && clang -O2 a.c -o a -lm && ./a",
    "c++ and what is kept": "cp a.c a.cc; clang++ -O1 -save-temps -c a.cc",
    "this processor": "clang -mcpu=native -c a.c && clang -mtune=native -c a.c -o b.o",
    "response file": "echo '-O2 -g' >options; clang @options -c a.c",
    "another target": "clang --target=riscv64-linux-gnu -O2 -ffreestanding -nostdlibinc -c b.c",
    "what it says": "clang --version; clang -print-search-dirs; clang -v -c a.c",
    "by another name": "cd /tmp; ln -s /usr/bin/clang mips-linux-gnu-clang;"
    " ./mips-linux-gnu-clang -c /mnt/b.c -o /mnt/b.o",
    "chroot": "chroot / /bin/sh -c 'cd /mnt && clang -O2 -c a.c'",
}


@pytest.mark.parametrize("name", CLANG)
def test_clang_leaves_what_emulation_leaves(tree: CompilerTree, work: HostPath, name: str) -> None:
    files = {"a.c": HELLO, "b.c": "int twice(int x) { return 2 * x; }\n"}
    tree.both(work, files, f"exec 2>&1; {CLANG[name]}")


def test_clang_is_native_when_it_starts_itself(tree: CompilerTree, work: HostPath) -> None:
    """As it does for more than one job: -cc1 comes from a native clang, by the tree's path."""
    script = (
        "mkfifo in; clang -c -x c in -o a.o -save-temps & exec 3>in; sleep 2;"
        " for each in /proc/[0-9]*; do readlink $each/exe; done; exec 3>&-; wait"
    )
    shown = tree.run(write_files(f"{work}/self", {}), script, "--native").stdout
    assert shown.count("/run/xbuild/native/usr/lib/llvm-19/bin/clang") == 2


def test_cargo_builds_with_a_macro_of_the_tree_s(tree: CompilerTree, work: HostPath) -> None:
    """rustc loads the macro, a library of the target: it must be the tree's own that does."""
    dependencies = 'plain = { path = "plain" }\nmacros = { path = "macros" }\n'
    files = {
        "Cargo.toml": CARGO + dependencies,
        "plain.toml": CRATE.format("plain"),
        "plain.rs": "pub fn half(x: f64) -> f64 { x / 2.0 }\n",
        "macros.toml": CRATE.format("macros") + "[lib]\nproc-macro = true\n",
        "macros.rs": MACRO,
        "main.rs": 'fn main() { println!("{}", plain::half(macros::seven!() as f64)); }\n',
    }
    script = (
        "mkdir -p src plain/src macros/src && mv main.rs src && export HOME=/tmp CARGO_HOME=/tmp/c;"
        " for each in plain macros; do mv $each.toml $each/Cargo.toml;"
        " mv $each.rs $each/src/lib.rs; done; cargo -q build --offline &&"
        " cp target/debug/app target/debug/deps/libplain-*.rlib target/debug/deps/libmacros-*.so ."
        " && rm -r target Cargo.lock && ./app"
    )
    assert tree.both(work, files, script) == "3.5\n"


def test_rustc_names_the_tree_s_machine(tree: CompilerTree, work: HostPath) -> None:
    said = tree.both(work, {}, "rustc -vV; rustc --print cfg; rustc --print sysroot")
    assert "host: aarch64-unknown-linux-gnu" in said


def test_go_builds_a_program_of_the_tree_s(tree: CompilerTree, work: HostPath) -> None:
    """Emulated, this takes minutes: the proof has compared such a build."""
    program = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Printf("%.3f\\n", 1.0/3) }\n'
    other = 'package main\n\nfunc main() { println("no more of the library than there must be") }\n'
    script = (
        "export HOME=/tmp GOFLAGS=-buildvcs=false; go env GOARCH GOHOSTARCH;"
        " go build -o a a.go && ./a && GOARCH=riscv64 go build -o b b.go"
    )
    place = write_files(f"{work}/go", {"a.go": program, "b.go": other})
    done = tree.run(place, script, "--native", timeout_s=WORK_S)
    assert done.stdout == "arm64\narm64\n0.333\n", done.stderr
    machines = {name: Path(place, name).read_bytes()[18] for name in ("a", "b")}
    assert machines == {"a": 183, "b": 243}  # EM_AARCH64, EM_RISCV


def test_upgraded_library_leaves_a_compiler_to_emulation(
    tree: CompilerTree, work: HostPath, place: HostPath
) -> None:
    """Most of clang is in libclang-cpp and libLLVM, whose content counts as clang's own does."""
    copy = f"{place}/upgraded"
    subprocess.run(["cp", "-al", tree.path, copy], check=True)  # both have one file system
    library = Path(f"{copy}/usr/lib/aarch64-linux-gnu/libclang-cpp.so.19.1")
    content = library.read_bytes()
    library.unlink()
    try:
        library.write_bytes(content + b"\0")
        done = tree.runner.run("--native", "--dry-run", copy, "true", env=tree.environment())
        assert "libclang-cpp.so.19.1" in done.stdout + done.stderr
        assert "emulated" in done.stdout + done.stderr
    finally:
        shutil.rmtree(copy)
