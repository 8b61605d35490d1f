"""What a new tree of a distribution has in its sources."""

from __future__ import annotations

import pytest

from xbuild.record import HostPath, replace
from xbuild.source import sources_list
from xbuild.source.kinds import Suite
from xbuild.source.mirror import Mirror
from xbuild.source.sources_list import sources_of, updates_of

BOOKWORM = Suite("debian", "bookworm", "arm64", "minbase")
MIRROR = Mirror("http://one.example/debian", HostPath("/keys.gpg"))


@pytest.fixture(autouse=True)
def security(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_list, "find_security_archive", lambda: "http://s.example/security")


def test_debian_is_made_from_the_release_and_gets_updates_later() -> None:
    assert sources_of(BOOKWORM, MIRROR, "/keys.gpg") == (
        "deb [signed-by=/keys.gpg] http://one.example/debian bookworm main",
    )
    assert updates_of(BOOKWORM, MIRROR, "") == (
        "deb http://one.example/debian bookworm-updates main",
        "deb http://s.example/security bookworm-security main",
    )


@pytest.mark.parametrize("suite", ["sid", "unstable", "experimental", "buster"])
def test_suite_without_updates_or_unknown(suite: str) -> None:
    assert updates_of(replace(BOOKWORM, suite=suite), MIRROR, "") == ()


def test_named_mirror_is_all_that_there_is() -> None:
    assert updates_of(replace(BOOKWORM, mirror=MIRROR.uri), MIRROR, "") == ()
