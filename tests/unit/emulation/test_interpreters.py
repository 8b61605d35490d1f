"""Finding and verifying interpreters, with tiny static programs in the part of qemu.

A tiny program of the host's own architecture is all that an interpreter must be by its header;
one that prints what a trial expects passes for an emulator.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from xbuild.binary.arch import ARCHES, arch_named, host_arch
from xbuild.binary.write import tiny_program
from xbuild.emulation.facts import cached_facts
from xbuild.emulation.interpreters import (
    Interpreter,
    find_interpreter,
    verified_interpreter,
    verify_interpreter,
)
from xbuild.emulation.trial import TRIAL_STATUS, TRIAL_TEXT
from xbuild.errors import InterpreterMissing, InterpreterUnsuitable
from xbuild.record import HostPath

WANTED = arch_named("riscv64" if host_arch().name != "riscv64" else "s390x")
QEMU = f"qemu-{WANTED.name}"
OTHER = next(a for a in ARCHES if a.machine not in (host_arch().machine, WANTED.machine))
WORKING = tiny_program(host_arch(), TRIAL_TEXT, status=TRIAL_STATUS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def put(path: Path, content: bytes = WORKING, *, mode: int = 0o755) -> HostPath:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return HostPath(str(path))


def find_in(*directories: Path) -> Interpreter:
    return find_interpreter(WANTED, directories=tuple(HostPath(str(d)) for d in directories))


def claimed(path: HostPath) -> Interpreter:
    return Interpreter(path, WANTED, None, "test")


@pytest.mark.parametrize("name", [f"{QEMU}-static", QEMU])
def test_both_names_are_found(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / name)
    assert find_in(tmp_path).path == path


def test_debians_link_is_followed_to_qemus_own_name(tmp_path: Path) -> None:
    path = put(tmp_path / f"bin/{QEMU}")
    link = tmp_path / f"qemu-binfmt/{WANTED.name}-binfmt-P"
    link.parent.mkdir()
    link.symlink_to(f"../bin/{QEMU}")
    assert find_in(link.parent).path == path


def test_debians_name_without_a_link_is_found(tmp_path: Path) -> None:
    path = put(tmp_path / f"qemu-binfmt/{WANTED.name}-binfmt-P")
    assert find_in(tmp_path / "qemu-binfmt").path == path


def test_a_dynamic_one_gives_way_to_a_static_one(tmp_path: Path) -> None:
    dynamic = Path(sys.executable).resolve().read_bytes()
    put(tmp_path / f"a/{QEMU}", dynamic)
    path = put(tmp_path / f"b/{QEMU}")
    assert find_in(tmp_path / "a", tmp_path / "b").path == path


def test_a_search_path_is_looked_through_last(tmp_path: Path) -> None:
    path = put(tmp_path / f"mine/{QEMU}")
    directories = (HostPath(str(tmp_path)),)
    found = find_interpreter(
        WANTED, directories=directories, search_path=f"relative:.::{tmp_path}/mine"
    )
    assert found.path == path


def test_path_is_not_consulted_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / f"mine/{QEMU}")
    monkeypatch.setenv("PATH", str(tmp_path / "mine"))
    with pytest.raises(InterpreterMissing):
        find_in(tmp_path)


def test_a_missing_one_says_what_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InterpreterMissing, match=WANTED.name) as caught:
        find_in(tmp_path, tmp_path / "nonexistent")
    assert caught.value.hint


def test_what_qemu_does_not_emulate_is_missing() -> None:
    with pytest.raises(InterpreterMissing, match="ia64"):
        find_interpreter(arch_named("ia64"))


def directory(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path, 0o755)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.symlink_to(path)


def not_executable(path: Path) -> None:
    put(path, mode=0o644)


def script(path: Path) -> None:
    put(path, b"#!/bin/sh\n")


def text(path: Path) -> None:
    put(path, b"hello\n")


def empty(path: Path) -> None:
    put(path, b"")


def truncated(path: Path) -> None:
    put(path, WORKING[:70])


def dynamic(path: Path) -> None:
    put(path, Path(sys.executable).resolve().read_bytes())


def foreign(path: Path) -> None:
    put(path, tiny_program(OTHER, TRIAL_TEXT))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (directory, "a directory"),
        (fifo, "not a regular file"),
        (loop, "cannot be read"),
        (not_executable, "not executable"),
        (script, "a script"),
        (text, "not an ELF program"),
        (empty, "not an ELF program"),
        (truncated, "cut off"),
        (dynamic, "dynamically linked"),
        (foreign, f"for {OTHER.name}"),
    ],
)
def test_what_cannot_serve_is_named(tmp_path: Path, make: object, reason: str) -> None:
    path = tmp_path / QEMU
    assert callable(make)
    make(path)
    for override, directories in ((HostPath(str(path)), ()), (None, (HostPath(str(tmp_path)),))):
        with pytest.raises(InterpreterUnsuitable, match=reason) as caught:
            find_interpreter(WANTED, override=override, directories=directories)
        assert str(path) in caught.value.message
        assert "install" in caught.value.hint


def test_an_override_that_is_not_there_is_missing(tmp_path: Path) -> None:
    dangling(tmp_path / "link")
    for name in ("nonexistent", "link"):
        with pytest.raises(InterpreterMissing, match="no such file"):
            find_interpreter(WANTED, override=HostPath(str(tmp_path / name)))


def test_an_override_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert find_interpreter(WANTED, override=HostPath("mine")).path == path


def test_one_that_runs_the_program_is_verified(tmp_path: Path) -> None:
    assert verify_interpreter(claimed(put(tmp_path / "q"))).version is None


def test_one_that_vanished_is_missing(tmp_path: Path) -> None:
    path = put(tmp_path / "q")
    found = claimed(path)
    Path(path).unlink()
    with pytest.raises(InterpreterMissing, match="no such file"):
        verify_interpreter(found)


def test_one_that_says_it_emulates_something_else_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "q", tiny_program(host_arch(), b"qemu-arm version 9.9 (x)\n"))
    with pytest.raises(InterpreterUnsuitable, match="emulates arm"):
        verify_interpreter(claimed(path))


@pytest.mark.parametrize(
    "program",
    [
        tiny_program(host_arch(), b"", status=TRIAL_STATUS),
        tiny_program(host_arch(), TRIAL_TEXT, status=0),
        tiny_program(host_arch(), TRIAL_TEXT + b"more", status=TRIAL_STATUS),
    ],
    ids=["silent", "wrong status", "talkative"],
)
def test_one_that_does_something_else_is_unsuitable(tmp_path: Path, program: bytes) -> None:
    with pytest.raises(InterpreterUnsuitable, match=f"does not run {WANTED.name}"):
        verify_interpreter(claimed(put(tmp_path / "q", program)))


def test_a_verified_one_is_not_run_again(tmp_path: Path) -> None:
    ran = tiny_program(host_arch(), TRIAL_TEXT, status=TRIAL_STATUS)
    path = put(tmp_path / "q", ran)
    first = verified_interpreter(WANTED, override=path, remember=True)
    assert cached_facts(path) is not None
    assert verified_interpreter(WANTED, override=path, remember=False) == first


def test_nothing_is_remembered_unasked(tmp_path: Path) -> None:
    path = put(tmp_path / "q")
    verified_interpreter(WANTED, override=path, remember=False)
    assert cached_facts(path) is None


def test_facts_about_another_architecture_do_not_serve(tmp_path: Path) -> None:
    path = put(tmp_path / "q")
    verified_interpreter(OTHER, override=path, remember=True)
    assert find_interpreter(WANTED, override=path).version is None
    verified_interpreter(WANTED, override=path, remember=True)
    facts = cached_facts(path)
    assert facts is not None
    assert facts.arch == WANTED.name
