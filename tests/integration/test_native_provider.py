"""Native tools from a directory: a crossdev toolchain for a tree without a package database."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crossdev import CHOST, VERSION, copy_of, make_tree, provider
from tests.runs import Runner
from xbuild.record import HostPath
from xbuild.source.cache import cache_directory

# Of its own: a set for Debian's packages knows more programs of this tree, which are Debian's.
CACHE_HOME = f"{cache_directory()}/test-crossdev-cache"

pytestmark = pytest.mark.usefixtures("host_untouched")


@pytest.fixture(scope="module")
def tree(place: HostPath) -> HostPath:
    return make_tree(HostPath(f"{place}/gentoo"))


@pytest.fixture(scope="module")
def cross() -> HostPath:
    return provider()


@pytest.fixture
def changed(cross: HostPath, place: HostPath) -> Iterator[HostPath]:
    """A copy of the provider, of the test's own."""
    copy = copy_of(cross, HostPath(f"{place}/changed"))
    yield copy
    shutil.rmtree(copy)


def prepare(tree: HostPath, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xbuild", "native", "prepare", *words, tree],
        env={**os.environ, "XDG_CACHE_HOME": CACHE_HOME},
        capture_output=True,
        text=True,
    )


def test_crossdev_toolchain_compiles_for_a_tree_without_dpkg(
    tree: HostPath, cross: HostPath, root: Runner, tmp_path: Path
) -> None:
    done = prepare(tree, "--provider", cross)
    assert done.returncode == 0, done.stderr
    environment = root.user.environment(XDG_CACHE_HOME=CACHE_HOME)
    said = root.run("--native", "--dry-run", "--json", tree, "true", env=environment).stdout
    (step,) = [each for each in json.loads(said)["steps"] if each["step"] == "Substitute"]
    native = {os.path.basename(each["path"]) for each in step["substitutions"]}
    assert {"cc1", "collect2", f"{CHOST}-gcc", f"{CHOST}-as", f"{CHOST}-ld.bfd"} <= native
    assert {each["verdict"] for each in step["substitutions"]} == {"identical"}
    script = (
        "gcc -O2 -g -flto -c a.c -frandom-seed=x && gcc -O2 -g a.c -o a && ar rcsD a.a a.o && ./a"
    )
    made = []
    for chosen in ((), ("--native",)):
        work = tmp_path / ("native" if chosen else "emulated")
        work.mkdir()
        (work / "a.c").write_text('#include <stdio.h>\nint main(void) { return !puts("made"); }\n')
        place = ("--bind", f"{work}:/mnt", "--chdir", "/mnt")
        done = root.run(*chosen, *place, tree, "--", "/bin/sh", "-ec", script, env=environment)
        assert done.stdout == "made\n", done.stderr
        made.append({each.name: each.read_bytes() for each in work.iterdir()})
    assert made[0] == made[1]


def test_gentoo_tree_is_served_by_this_host_s_crossdev(tree: HostPath) -> None:
    """Which this host has none of: it is looked for here all the same, without --provider."""
    done = prepare(tree)
    assert done.returncode == 125
    assert f"/ has no GCC {VERSION} for {CHOST}" in done.stderr
    assert "crossdev" in done.stderr


@pytest.mark.parametrize(
    ("renamed", "other", "found"),
    [
        (CHOST, "riscv64-linux-gnu", f"GCC {VERSION} for riscv64-linux-gnu"),
        (f"{CHOST}/{VERSION}", f"{CHOST}/13", f"GCC 13 for {CHOST}"),
    ],
    ids=["chost", "version"],
)
def test_toolchain_of_another_kind_is_refused(
    tree: HostPath, changed: HostPath, renamed: str, other: str, found: str
) -> None:
    for top in ("lib", "libexec"):
        place = f"{changed}/usr/{top}/gcc"
        if os.path.isdir(f"{place}/{CHOST}"):
            os.rename(f"{place}/{renamed}", f"{place}/{other}")
    done = prepare(tree, "--provider", changed)
    assert done.returncode == 125
    assert f"has no GCC {VERSION} for {CHOST}, but {found}" in done.stderr


def test_toolchain_that_was_configured_otherwise_is_refused(
    tree: HostPath, changed: HostPath
) -> None:
    cc1 = Path(changed, "usr/libexec/gcc", CHOST, VERSION, "cc1")
    content = cc1.read_bytes()
    assert b" --enable-default-pie " in content
    cc1.write_bytes(content.replace(b" --enable-default-pie ", b" --disable-defaul-pie "))
    done = prepare(tree, "--provider", changed)
    assert done.returncode == 125
    assert "configured otherwise: tree: --enable-default-pie" in done.stderr
    assert str(cc1) in done.stderr


def test_toolchain_as_crossdev_makes_it_is_refused_and_told_how_to_make_another(
    tree: HostPath, changed: HostPath
) -> None:
    """toolchain.eclass has a cross compiler warn of directories that are the tree's own here."""
    cc1 = Path(changed, "usr/libexec/gcc", CHOST, VERSION, "cc1")
    content = cc1.read_bytes()
    (languages,) = set(re.findall(rb" --enable-languages=\S+ ", content))
    option = b" --enable-poison-system-directories "
    cc1.write_bytes(content.replace(languages, option.ljust(len(languages))))
    done = prepare(tree, "--provider", changed)
    assert done.returncode == 125
    assert "configured otherwise: native: --enable-poison-system-directories" in done.stderr
    assert 'EXTRA_ECONF="--disable-poison-system-directories"' in done.stderr


def test_toolchain_that_does_not_tell_its_configuration_is_refused(
    tree: HostPath, changed: HostPath
) -> None:
    cc1 = Path(changed, "usr/libexec/gcc", CHOST, VERSION, "cc1")
    content = cc1.read_bytes()
    cc1.write_bytes(content.replace(b"/configure ", b"/c0nfigure "))
    done = prepare(tree, "--provider", changed)
    assert done.returncode == 125
    assert f"cc1 of {changed} does not tell what it was configured with" in done.stderr


def test_toolchain_of_another_machine_than_this_host_is_refused(tree: HostPath) -> None:
    done = prepare(tree, "--provider", tree)
    assert done.returncode == 125
    assert "is no program of this host" in done.stderr


def test_provider_without_any_compiler_is_refused(tree: HostPath, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        done = prepare(tree, "--provider", str(place))
        assert done.returncode == 125
        assert f"{place} has no GCC {VERSION} for {CHOST}" in done.stderr
