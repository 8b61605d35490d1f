"""What stands before a tree's compilers: under which names, with which environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xbuild.errors import HostUnable, UsageError
from xbuild.native.masquerade import check_frontend, compilers_in, stand_before
from xbuild.plan.request import Request
from xbuild.plan.steps import Bind, Plan
from xbuild.record import GuestPath, HostPath
from xbuild.tree.resolve import DirectoryReader

COMPILERS = (
    *("gcc", "g++", "cc", "c++", "gcc-14", "clang", "clang++-19", "aarch64-linux-gnu-gcc-14"),
    *("arm-linux-gnueabihf-g++", "x86_64-pc-linux-gnu-gcc-13.2.0"),
)
OTHERS = ("gcc-ar", "gcc-nm-14", "cpp", "ccache", "c++filt", "gccgo", "cc1", "colorgcc", "g++x")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def request(**fields: object) -> Request:
    return Request(HostPath("/tree"), ("make",), **fields)  # type: ignore[arg-type]  # as given


def test_compilers_are_told_from_their_kin(tmp_path: Path) -> None:
    programs = tmp_path / "usr/bin"
    programs.mkdir(parents=True)
    for name in (*COMPILERS, *OTHERS):
        (programs / name).touch()
    (programs / "gcc-13").symlink_to("nowhere")
    with DirectoryReader(HostPath(str(tmp_path))) as reader:
        found = compilers_in(reader)
    assert set(found) == set(COMPILERS)


def test_first_on_path_wins_and_links_are_followed(tmp_path: Path) -> None:
    for directory in ("usr/bin", "usr/local/bin"):
        (tmp_path / directory).mkdir(parents=True)
        (tmp_path / directory / "gcc").touch()
    (tmp_path / "usr/bin/cc").symlink_to("/usr/bin/gcc")
    with DirectoryReader(HostPath(str(tmp_path))) as reader:
        found = compilers_in(reader)
    assert found == {"gcc": "/usr/local/bin/gcc", "cc": "/usr/bin/gcc"}


@pytest.mark.usefixtures("cache")
def test_frontend_comes_first_on_path() -> None:
    made = stand_before(request(), "ccache", ("gcc",), {"CCACHE_DIR": "/x"})
    said = dict(made.environment)
    assert said["PATH"].startswith("/run/xbuild/ccache/bin:/usr/local/sbin:")
    assert made.native == "exact"
    (bind,) = made.binds
    assert (bind.destination, bind.read_only) == ("/run/xbuild/ccache/bin", True)
    assert sorted(os.listdir(bind.source)) == ["ccache", "gcc"]
    assert os.readlink(f"{bind.source}/gcc") == "/run/xbuild/native/usr/bin/ccache"


@pytest.mark.usefixtures("cache")
def test_what_the_user_sets_wins() -> None:
    own = (("PATH", "/opt/bin"), ("CCACHE_DIR", "/mine"))
    made = stand_before(
        request(environment=own, native="fast"), "ccache", ("gcc",), {"CCACHE_DIR": "/x"}
    )
    assert dict(made.environment) == {
        "PATH": "/run/xbuild/ccache/bin:/opt/bin",
        "CCACHE_DIR": "/mine",
    }
    assert made.native == "fast"


@pytest.mark.usefixtures("cache")
def test_same_names_share_a_directory() -> None:
    first, second = (stand_before(request(), "distcc", ("cc", "gcc"), {}) for _ in range(2))
    assert first.binds == second.binds


@pytest.mark.usefixtures("cache")
def test_tree_without_compilers_is_refused() -> None:
    with pytest.raises(UsageError, match="no C or C\\+\\+ compiler"):
        stand_before(request(), "ccache", (), {})


def test_set_without_the_frontend_is_refused(tmp_path: Path) -> None:
    bind = Bind(HostPath(str(tmp_path)), GuestPath("/run/xbuild/native"), read_only=True)
    plan = Plan(HostPath("/tree"), (bind,))
    with pytest.raises(HostUnable, match="has no ccache"):
        check_frontend(plan, "ccache")
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/ccache").touch()
    check_frontend(plan, "ccache")


def test_run_without_native_tools_is_refused() -> None:
    with pytest.raises(HostUnable, match="without native tools"):
        check_frontend(Plan(HostPath("/tree"), ()), "distcc")
