"""The list of faulty versions: sound as a file, and read as it is meant."""

from __future__ import annotations

import os
import tomllib
from typing import Any

import pytest

from xbuild.binary.arch import ARCHES, arch_named
from xbuild.emulation.faults import FILE, Fault, faults_of, known_faults
from xbuild.emulation.versions import parse_version
from xbuild.resources import data_directory

KEYS = {"architectures", "since", "before", "what", "summary", "except", "issue"}


def rows() -> list[dict[str, Any]]:  # Any: TOML
    with open(os.path.join(data_directory("known"), FILE), "rb") as file:
        document = tomllib.load(file)
    assert set(document) == {"fault"}
    found: list[dict[str, Any]] = document["fault"]
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["summary"][:40])
def test_every_row_is_sound(row: dict[str, Any]) -> None:
    assert set(row) <= KEYS
    assert row["what"] in ("crash", "hang", "error", "wrong")
    assert row["issue"].startswith("https://")
    assert row["summary"]
    assert not row["summary"].endswith(".")
    names = {arch.name for arch in ARCHES if arch.is_emulated}
    assert set(row.get("architectures", [])) <= names
    assert row.get("architectures") != []
    since, before = parse_version(row.get("since", "")), parse_version(row.get("before", ""))
    assert since or before, "a fault of all versions is a limit, not a version's"
    assert not since or not before or since < before


def test_no_row_is_there_twice() -> None:
    summaries = [row["summary"] for row in rows()]
    assert len(set(summaries)) == len(summaries) == len(known_faults())


FAULT = Fault(("aarch64",), "9.2.0", "10.0", "crash", "x", "https://example.org/1")


@pytest.mark.parametrize(
    ("arch", "version", "has_it"),
    [
        ("aarch64", "9.2.0", True),
        ("aarch64", "9.2.4", True),
        ("aarch64", "9.1.9", False),
        ("aarch64", "10.0", False),
        ("aarch64", "10.0.13", False),
        ("arm", "9.2.0", False),
        ("aarch64", "", False),
    ],
)
def test_first_version_has_it_and_last_has_not(arch: str, version: str, has_it: bool) -> None:
    assert FAULT.affects(arch_named(arch), version) is has_it


def test_one_that_began_before_anyone_knows() -> None:
    fault = Fault((), "", "5.0", "crash", "x", "https://example.org/1")
    assert fault.affects(arch_named("mips"), "2.9.1")
    assert not fault.affects(arch_named("mips"), "5.0")


def test_nothing_is_known_of_an_unknown_version() -> None:
    assert faults_of(arch_named("aarch64"), None) == ()
    assert [f.issue for f in faults_of(arch_named("aarch64"), "9.2.0")] == [
        "https://github.com/tonistiigi/binfmt/issues/231"
    ]
