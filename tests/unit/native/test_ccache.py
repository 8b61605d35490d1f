"""By what ccache knows a tree's compilers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crafted import Layout, Link, elf, make_tree
from xbuild.native.ccache import with_ccache
from xbuild.plan.request import Request

LAYOUT: Layout = {
    "bin/sh": elf("arm64"),
    "usr/bin/clang": Link("../lib/llvm-19/bin/clang"),
    "usr/lib/llvm-19/bin/clang": elf("arm64"),
    "usr/lib/aarch64-linux-gnu/libLLVM.so.19.1": b"most of it",
    "usr/lib/aarch64-linux-gnu/libclang-cpp.so.19.1": b"the rest",
    "usr/lib/aarch64-linux-gnu/libfoo.so.1": b"another's",
}


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _known_by(place: Path, changes: Layout) -> str:
    tree = make_tree(place, {**LAYOUT, **changes})
    environment = dict(with_ccache(Request(tree), "default").environment)
    return environment["CCACHE_COMPILERCHECK"]


@pytest.mark.parametrize("name", ["libLLVM.so.19.1", "libclang-cpp.so.19.1"])
def test_clang_is_known_by_the_libraries_that_do_its_work(tmp_path: Path, name: str) -> None:
    """A rebuild of these may leave the small program that loads them as it was."""
    changed: Layout = {f"usr/lib/aarch64-linux-gnu/{name}": b"upgraded"}
    assert _known_by(tmp_path / "new", changed) != _known_by(tmp_path / "old", {})


def test_other_libraries_do_not_count(tmp_path: Path) -> None:
    changed: Layout = {"usr/lib/aarch64-linux-gnu/libfoo.so.1": b"upgraded"}
    assert _known_by(tmp_path / "new", changed) == _known_by(tmp_path / "old", {})
