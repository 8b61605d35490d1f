"""Computed values in profiles: what is replaced, what is left out, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.errors import ProfileError, UsageError
from xbuild.plan.computed import COMPUTED, expand, has_computed, literal, names_in, share
from xbuild.plan.profile import Key, Profile, parse_profile
from xbuild.record import HostPath

VALUES = dict.fromkeys(COMPUTED, "") | {"chost": "c-h-o", "jobs": "3", "cache": "/c"}
KEYS = (Key("bind", "many", "source"), Key("cpu", "one"), Key("setenv", "many", is_table=True))
GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("-j{jobs}", "-j3"),
        ("{cache}/x/{chost}", "/c/x/c-h-o"),
        ("${HOME} ${jobs}", "${HOME} ${jobs}"),
        ("{{jobs}}", "{jobs}"),
        ('{"a": 1}', '{"a": 1}'),
        ("{a,b} {} {1}", "{a,b} {} {1}"),
        ("{cpu}", None),
        ("{ccache} {portage_features}", None),
        ("buildpkg {ccache} {portage_features}", "buildpkg"),
        ("", ""),
    ],
)
def test_expansion(text: str, wanted: str | None) -> None:
    assert expand(text, VALUES.__getitem__) == wanted


def test_unknown_value_is_refused_with_a_guess() -> None:
    with pytest.raises(UsageError) as caught:
        names_in("x{chosts}")
    assert (caught.value.message, caught.value.hint) == (
        "no computed value is called {chosts}",
        "did you mean {chost}?",
    )


@given(st.text("${}ab"))
def test_literal_text_stays_as_it_is(text: str) -> None:
    assert expand(literal(text), lambda name: "computed") == text


def test_text_without_any_asks_nothing() -> None:
    assert not has_computed("${a}")
    assert expand("${a}", lambda name: pytest.fail(name)) == "${a}"


def _parse(text: str, *, resolved: bool = True) -> Profile:
    value_of = VALUES.__getitem__ if resolved else None
    return parse_profile(HostPath("/etc/p.toml"), text, KEYS, value_of)


def test_profile_has_the_values_of_a_run() -> None:
    text = "cpu = '{cpu}'\nbind = ['{cache}/d:/d']\n[setenv]\nA = '{jobs}'\nB = '{cpu}'\n"
    assert _parse(text).values == (("cpu", ()), ("bind", ("/c/d:/d",)), ("setenv", ("A=3",)))
    as_written = (
        ("cpu", ("{cpu}",)),
        ("bind", ("{cache}/d:/d",)),
        ("setenv", ("A={jobs}", "B={cpu}")),
    )
    assert _parse(text, resolved=False).values == as_written


def test_mistake_is_named_with_its_line() -> None:
    for resolved in (True, False):
        with pytest.raises(ProfileError) as caught:
            _parse("\nbind = ['{caches}/d:/d']\n", resolved=resolved)
        assert caught.value.message.startswith(
            "/etc/p.toml:2: no computed value is called {caches}"
        )


def test_architectures_of_a_profile() -> None:
    assert _parse("arch = ['arm64', 'armhf']").arches == ("arm64", "armhf")
    with pytest.raises(ProfileError, match=r"p.toml:1: Unknown architecture: 'arm65'"):
        _parse("arch = ['arm65']")


@pytest.mark.parametrize(
    ("cores", "memory", "jobs", "scratch"),
    [
        (2, 24 * GIB, 2, 12 * GIB),
        (16, 8 * GIB, 4, 4 * GIB),
        (4, GIB, 1, GIB // 2),
        (1, 1, 1, 1 << 26),
    ],
)
def test_machine_is_shared_out(cores: int, memory: int, jobs: int, scratch: int) -> None:
    shares = share(cores, memory)
    assert (shares.cores, shares.jobs, shares.scratch_bytes) == (cores, jobs, scratch)
