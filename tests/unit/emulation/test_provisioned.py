"""Interpreters in the cache: found by version, and believed where they are the caller's own.

Tiny programs of the host's own architecture play the part of qemu, as in test_interpreters.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.capability import require
from xbuild.binary.arch import arch_named, host_arch
from xbuild.binary.write import tiny_program
from xbuild.emulation.interpreters import find_interpreter
from xbuild.emulation.provisioned import newest_provisioned, provisioned_versions
from xbuild.emulation.selection import interpreter_by_version, interpreters_for
from xbuild.emulation.trial import TRIAL_STATUS, TRIAL_TEXT
from xbuild.errors import InterpreterMissing, InterpreterUnsuitable, UnknownArchitecture, UsageError
from xbuild.record import HostPath

WANTED = arch_named("riscv64" if host_arch().name != "riscv64" else "s390x")
NOWHERE = (HostPath("/nonexistent"),)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = tmp_path / "xbuild" / "qemu"
    place.mkdir(parents=True, mode=0o700)
    return place


def put(cache: Path, version: str, content: bytes | None = None) -> Path:
    directory = cache / version
    directory.mkdir()
    program = directory / f"qemu-{WANTED.name}"
    working = tiny_program(host_arch(), TRIAL_TEXT, status=TRIAL_STATUS)
    program.write_bytes(working if content is None else content)
    program.chmod(0o755)
    (directory / "origin.json").write_text("{}")
    return program


def test_versions_are_listed_newest_first(cache: Path) -> None:
    for version in ("7.2.22", "10.0.13", "9.2.0"):
        put(cache, version)
    (cache / "work-x").mkdir()
    (cache / "lock").touch()
    found = provisioned_versions()
    assert [each.version for each in found] == ["10.0.13", "9.2.0", "7.2.22"]
    assert found[0].arches == (WANTED.name,)


def test_no_cache_is_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert provisioned_versions() == ()
    assert newest_provisioned(WANTED) is None


def test_the_newest_serves_where_the_host_has_none(cache: Path) -> None:
    put(cache, "7.2.22")
    newest = put(cache, "10.0.13")
    found = find_interpreter(WANTED, directories=NOWHERE)
    assert (found.path, found.source) == (str(newest), "fetched by xbuild setup")


def test_the_hosts_own_goes_first(cache: Path, tmp_path: Path) -> None:
    content = put(cache, "10.0.13").read_bytes()
    own = tmp_path / f"qemu-{WANTED.name}"
    own.write_bytes(content)
    own.chmod(0o755)
    assert find_interpreter(WANTED, directories=(HostPath(str(tmp_path)),)).path == str(own)


def test_damage_in_the_cache_is_named(cache: Path) -> None:
    put(cache, "10.0.13", b"\x7fELF")
    with pytest.raises(InterpreterUnsuitable, match="cut off"):
        find_interpreter(WANTED, directories=NOWHERE)


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_what_others_can_write_is_not_believed(cache: Path, mode: int) -> None:
    put(cache, "10.0.13")
    cache.chmod(mode)
    assert provisioned_versions() == ()


def test_what_is_anothers_is_not_believed(cache: Path) -> None:
    require("root", os.geteuid() == 0, "gives files away")
    put(cache, "10.0.13")
    os.chown(cache / "10.0.13", 12345, 12345)
    assert provisioned_versions() == ()


@pytest.mark.parametrize("name", [WANTED.name, f"qemu-{WANTED.name}", f"qemu-{WANTED.name}-static"])
@pytest.mark.parametrize(("wish", "version"), [("10", "10.0.13"), ("91.2", "91.2.0")])
def test_a_version_is_had_by_name(cache: Path, name: str, wish: str, version: str) -> None:
    paths = {v: put(cache, v) for v in ("10.0.13", "91.2.0")}
    assert interpreter_by_version(f"{name}@{wish}") == str(paths[version])


def test_of_several_that_fit_the_newest_is_had(cache: Path) -> None:
    put(cache, "91.0.1")
    newest = put(cache, "91.10.0")
    assert interpreter_by_version(f"{WANTED.name}@91") == str(newest)


def test_what_is_not_there_is_said_with_what_is(cache: Path) -> None:
    put(cache, "91.0.1")
    with pytest.raises(InterpreterMissing, match=r"91\.0\.1") as failure:
        interpreter_by_version(f"{WANTED.name}@92")
    assert failure.value.hint == f"xbuild setup --version 92 {WANTED.name}"


def test_nonsense_is_refused(cache: Path) -> None:
    with pytest.raises(UsageError):
        interpreter_by_version(f"{WANTED.name}@new")
    with pytest.raises(UnknownArchitecture):
        interpreter_by_version("pdp11@10")


def test_all_that_is_there_is_listed_with_its_version(cache: Path) -> None:
    put(cache, "91.0.1")
    put(cache, "90.0.0")
    versions = [each.version for each in interpreters_for(WANTED)]
    assert versions[:2] == ["91.0.1", "90.0.0"]
