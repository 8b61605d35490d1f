"""known/limits.toml: sound, complete in its words, each entry provoked or recorded somewhere."""

from __future__ import annotations

import os
import re
import signal
import tomllib
from typing import Any

import pytest

from tests.provocations import ARRANGED, PROVOKED, PROVOKED_HANGS, RECORDED
from xbuild.binary.arch import arch_named
from xbuild.diagnosis.limits import FILE, TRAITS, known_limits
from xbuild.emulation.versions import parse_version
from xbuild.resources import data_directory

KEYS = {
    *(
        "name",
        "lines",
        "unless",
        "near",
        "signals",
        "commands",
        "waits",
        "needs",
        "lacks",
        "since",
        "before",
    ),
    *("faults", "cause", "issue", "attempt", "retry"),
}


def rows() -> list[dict[str, Any]]:  # Any: TOML
    with open(os.path.join(data_directory("known"), FILE), "rb") as file:
        document = tomllib.load(file)
    assert set(document) == {"limit"}
    found: list[dict[str, Any]] = document["limit"]
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["name"])
def test_every_entry_is_sound(row: dict[str, Any]) -> None:
    assert set(row) <= KEYS
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row["name"])
    assert set(row.get("needs", [])) | set(row.get("lacks", [])) <= set(TRAITS)
    assert set(row.get("faults", [])) <= {"crash", "hang", "error", "wrong"}
    assert all(number in set(signal.Signals) for number in row.get("signals", []))
    assert row["issue"].startswith("https://")
    assert row.get("lines") or row.get("signals") or row.get("commands")
    assert not row["cause"].endswith(".")
    assert "\n" not in row["cause"] + row["attempt"]
    assert set(re.findall(r"\{(\w+)\}", row["attempt"])) <= {"arch", "tree", "interpreter"}
    for version in ("since", "before"):
        assert parse_version(row.get(version, "1"))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["name"])
def test_no_pattern_matches_everything(row: dict[str, Any]) -> None:
    for text in row.get("lines", []):
        pattern = re.compile(text)
        for line in ("", "make: *** [all] Error 1", "error: something failed", "FAILED", "Killed"):
            assert not pattern.fullmatch(line), (text, line)


def test_names_are_unique() -> None:
    names = [limit.name for limit in known_limits()]
    assert len(set(names)) == len(names)


def test_each_entry_is_provoked_or_recorded() -> None:
    names = {limit.name for limit in known_limits()}
    tried = {p.limit for p in PROVOKED} | {p.limit for p in PROVOKED_HANGS}
    assert tried | set(ARRANGED) | {each.limit for each in RECORDED} == names


def test_architectures_of_recordings_exist() -> None:
    for each in RECORDED:
        arch_named(each.architecture)
