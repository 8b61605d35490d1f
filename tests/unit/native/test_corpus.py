"""The cases of the corpus, and what becomes of outputs that differ."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xbuild.native.corpus import Subject, corpus_cases, corpus_version
from xbuild.native.corpus_case import Case
from xbuild.native.corpus_compare import Outcome, compare
from xbuild.native.corpus_utilities import COMMANDS
from xbuild.record import GuestPath
from xbuild.toolset.manifest import Tool

CASE = Case("as.x", ("as",), "", "x.c -g")
NUANCE = Case("as.y", ("as",), "", "says", nuance="what it says")


def subject(path: str, key: str, base: str) -> Subject:
    return Subject(Tool(GuestPath(path), "", "compiler", "native"), key, base)


def gcc(version: str) -> list[Subject]:
    place = f"/usr/libexec/gcc/aarch64-linux-gnu/{version}"
    return [subject(f"{place}/{name}", f"{name}@{version}", name) for name in ("cc1", "cc1plus")]


def leave(place: Path, case: Case, status: int, **outputs: bytes) -> None:
    place.mkdir(exist_ok=True)
    (place / f"{case.name}.status").write_text(f"{status}\n")
    for suffix, content in outputs.items():
        (place / f"{case.name}.{suffix}").write_bytes(content)


def outcome(tmp_path: Path, *cases: Case) -> Outcome:
    return compare(cases or (CASE,), str(tmp_path / "emulated"), str(tmp_path / "native"))["as"]


def test_same_bytes_are_no_difference(tmp_path: Path) -> None:
    for side in ("emulated", "native"):
        leave(tmp_path / side, CASE, 0, o=b"object", stderr=b"")
    assert outcome(tmp_path) == Outcome(1, 1, 1, ())


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ({"status": 0, "o": b"another"}, "as.x.o differs"),
        ({"status": 0}, "as.x.o is missing"),
        ({"status": 0, "o": b"object", "d": b""}, "as.x.d is more"),
        ({"status": 139, "o": b"object"}, "exit status 139, not 0"),
        ({"status": 0, "o": b"object", "stderr": b"warning"}, "stderr is more"),
    ],
)
def test_any_difference_is_told(tmp_path: Path, native: dict[str, object], reason: str) -> None:
    leave(tmp_path / "emulated", CASE, 0, o=b"object")
    outputs = {key: value for key, value in native.items() if isinstance(value, bytes)}
    leave(tmp_path / "native", CASE, int(str(native["status"])), **outputs)
    assert outcome(tmp_path).reason == f"1 of 1 cases differ (x.c -g: {reason})"


def test_nothing_left_natively_is_a_difference(tmp_path: Path) -> None:
    leave(tmp_path / "emulated", CASE, 0, o=b"object")
    (tmp_path / "native").mkdir()
    assert outcome(tmp_path).differences


def test_what_did_not_run_emulated_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "emulated").mkdir()
    leave(tmp_path / "native", CASE, 0)
    assert compare((CASE,), str(tmp_path / "emulated"), str(tmp_path / "native")) == {}


def test_equal_failures_prove_nothing(tmp_path: Path) -> None:
    for side in ("emulated", "native"):
        leave(tmp_path / side, CASE, 127)
    assert outcome(tmp_path) == Outcome(1, 0, 0, ())


def test_nuance_is_one_only_alone(tmp_path: Path) -> None:
    for case in (CASE, NUANCE):
        leave(tmp_path / "emulated", case, 0, o=b"object")
        leave(tmp_path / "native", case, 0, o=b"object" if case is CASE else b"other")
    found = outcome(tmp_path, CASE, NUANCE)
    assert (found.is_nuance, found.reason) == (True, "what it says")
    leave(tmp_path / "native", CASE, 0, o=b"other")
    found = outcome(tmp_path, CASE, NUANCE)
    assert (found.is_nuance, found.reason) == (
        False,
        "1 of 2 cases differ (x.c -g: as.x.o differs)",
    )


def test_names_of_temporary_files_are_no_difference(tmp_path: Path) -> None:
    leave(tmp_path / "emulated", CASE, 0, stderr=b"/tmp/ccAbC123.o: wrong", o=b"/tmp/ccAbC123.o")
    leave(tmp_path / "native", CASE, 0, stderr=b"/tmp/ccXyZ789.o: wrong", o=b"/tmp/ccAbC123.o")
    assert not outcome(tmp_path).differences


def test_directories_links_and_modes_are_compared(tmp_path: Path) -> None:
    for side in ("emulated", "native"):
        leave(tmp_path / side, CASE, 0)
        place = tmp_path / side / f"{CASE.name}.d"
        place.mkdir()
        (place / "file").write_bytes(b"same")
        os.symlink("file", place / "link")
    assert not outcome(tmp_path).differences
    (tmp_path / "native" / f"{CASE.name}.d" / "file").chmod(0o600)
    assert "has mode" in outcome(tmp_path).reason


def test_pipes_are_compared_and_never_read(tmp_path: Path) -> None:
    for side in ("emulated", "native"):
        leave(tmp_path / side, CASE, 0)
        os.mkfifo(tmp_path / side / f"{CASE.name}.o", 0o600)
    assert not outcome(tmp_path).differences
    (tmp_path / "native" / f"{CASE.name}.o").unlink()
    (tmp_path / "native" / f"{CASE.name}.o").touch(0o600)
    assert "has mode" in outcome(tmp_path).reason


def test_status_that_is_no_file_proves_nothing(tmp_path: Path) -> None:
    """A hostile tree may leave a link to a file of the host's, or a pipe without a writer."""
    for side in ("emulated", "native"):
        (tmp_path / side).mkdir()
        os.symlink("/etc/hostname", tmp_path / side / f"{CASE.name}.status")
        os.mkfifo(tmp_path / side / f"{NUANCE.name}.status")
    found = outcome(tmp_path, CASE, NUANCE)
    assert (found.cases, found.succeeded, found.answered) == (2, 0, 0)


def test_each_version_of_gcc_is_proven_by_itself() -> None:
    cases = tuple(corpus_cases("aarch64", [*gcc("12"), *gcc("14")]))
    for version in ("12", "14"):
        mine = [case for case in cases if case.tools == (f"cc1@{version}",)]
        assert len(mine) > 50
        assert all(f"gcc-{version}" in case.script for case in mine)


def test_assembler_is_proven_on_what_an_emulated_compiler_makes_once() -> None:
    """Where the revision of the native compiler is refused."""
    assembler = subject("/usr/bin/arm-linux-gnueabihf-as", "as", "as")
    emulated = frozenset([("12", "arm-linux-gnueabihf")])
    cases = tuple(corpus_cases("arm", [assembler], emulated=emulated))
    judged = {tool for case in cases for tool in case.tools}
    assert judged == {"as"}
    compiled = [case for case in cases if "\ncompile " in case.script]
    assert len(compiled) > 50
    assert all(case.script.startswith(f'[ -e "$R/{case.name}.plan" ] ||') for case in compiled)
    assert not any("compile " in case.script for case in corpus_cases("arm", [assembler]))


def test_names_of_cases_are_unique_and_none_begins_another() -> None:
    tools = [subject(f"/usr/bin/{name}", name, name) for name in COMMANDS]
    names = [case.name for case in corpus_cases("aarch64", [*gcc("14"), *tools])]
    assert len(names) == len(set(names))
    for name in names:
        stem = name
        while stem := stem.rpartition(".")[0]:
            assert stem not in names, (name, stem)


def test_flags_of_an_architecture_are_its_own() -> None:
    scripts = {
        arch: "".join(case.script for case in corpus_cases(arch, gcc("14")))
        for arch in ("aarch64", "riscv64")
    }
    assert "-march=armv9-a" in scripts["aarch64"]
    assert "-march=armv9-a" not in scripts["riscv64"]
    assert "-march=rv64gcv" in scripts["riscv64"]


def test_version_of_the_corpus_is_stable() -> None:
    assert corpus_version() == corpus_version()
    assert len(corpus_version()) == 16
