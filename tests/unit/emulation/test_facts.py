"""The cache of facts about interpreters: exact about files, forgiving about itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.capability import require
from xbuild.emulation.facts import Facts, cached_facts, identify, remember_facts
from xbuild.record import HostPath

FACTS = Facts("aarch64", "7.2.22")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/xbuild/interpreters"


@pytest.fixture
def program(tmp_path: Path) -> HostPath:
    file = tmp_path / "qemu"
    file.write_bytes(b"1")
    return HostPath(str(file))


def remember(program: HostPath, facts: Facts = FACTS) -> None:
    identity = identify(program)
    assert identity is not None
    remember_facts(identity, facts)


@pytest.mark.parametrize("facts", [FACTS, Facts("arm", None)])
def test_what_was_remembered_is_known(program: HostPath, facts: Facts) -> None:
    remember(program, facts)
    assert cached_facts(program) == facts


def test_a_changed_file_is_unknown(program: HostPath) -> None:
    remember(program)
    Path(program).write_bytes(b"2")
    os.utime(program, ns=(0, 0))
    assert cached_facts(program) is None


def test_a_replaced_file_is_unknown(program: HostPath, tmp_path: Path) -> None:
    remember(program)
    (tmp_path / "new").write_bytes(b"1")
    (tmp_path / "new").rename(program)
    assert cached_facts(program) is None


def test_a_file_that_is_gone_is_unknown(program: HostPath) -> None:
    remember(program)
    Path(program).unlink()
    assert cached_facts(program) is None


def test_newer_facts_take_the_place_of_older_ones(program: HostPath, cache: Path) -> None:
    remember(program, Facts("arm", None))
    remember(program)
    assert cached_facts(program) == FACTS
    assert cache.read_text().count(program) == 1


def test_several_files_are_told_apart(program: HostPath, tmp_path: Path) -> None:
    other = HostPath(str(tmp_path / "other"))
    Path(other).write_bytes(b"1")
    remember(program)
    remember(other, Facts("arm", "9"))
    assert (cached_facts(program), cached_facts(other)) == (FACTS, Facts("arm", "9"))


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\n", b"# xbuild interpreters 0\nrow\n", b"\t\t\t\t\t\t\t\n"]
)
def test_a_garbled_cache_is_no_cache(program: HostPath, cache: Path, content: bytes) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    assert cached_facts(program) is None
    remember(program)
    assert cached_facts(program) == FACTS


def test_a_directory_or_fifo_in_its_place_is_no_cache(program: HostPath, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    os.mkfifo(cache)
    assert cached_facts(program) is None
    cache.unlink()
    cache.mkdir()
    remember(program)
    assert cached_facts(program) is None
    assert [entry.name for entry in cache.parent.iterdir()] == [cache.name]


def test_an_unwritable_place_is_no_cache(
    program: HostPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nonexistent")
    remember(program)
    assert cached_facts(program) is None


def test_without_a_home_there_is_no_cache(
    program: HostPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.delenv("HOME", raising=False)
    remember(program)
    assert cached_facts(program) is None


def test_another_users_cache_is_not_believed(program: HostPath, cache: Path) -> None:
    require("root", os.geteuid() == 0, "only root can give a file away")
    remember(program)
    os.chown(cache, 65534, 65534)
    assert cached_facts(program) is None


def test_the_cache_does_not_grow_without_bound(tmp_path: Path, cache: Path) -> None:
    for number in range(230):
        file = tmp_path / f"q{number}"
        file.write_bytes(b"1")
        remember(HostPath(str(file)))
    assert len(cache.read_text().splitlines()) == 201
    assert cached_facts(HostPath(str(tmp_path / "q229"))) == FACTS


def test_asking_changes_nothing(program: HostPath, cache: Path) -> None:
    assert cached_facts(program) is None
    assert not cache.parent.exists()
