"""Versions: what qemu and its packages call themselves, and which one a wish means."""

from __future__ import annotations

import pytest

from xbuild.emulation.versions import is_asked_for, package_version, parse_version


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("7.2.22", (7, 2, 22)),
        ("10", (10,)),
        ("9.2.0-rc1", (9, 2, 0)),
        ("9.2rc1.5", (9, 2)),
        ("", ()),
        ("x.1", ()),
        ("7..2", (7,)),
    ],
)
def test_leading_numbers_are_the_version(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_version(text) == numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1:7.2+dfsg-7+deb12u18+b3", (7, 2)),
        ("1:10.0.13+ds-0+deb13u1", (10, 0, 13)),
        ("1:8.2.2+ds-0ubuntu1.4", (8, 2, 2)),
        ("9.1~rc1-1", (9, 1)),
    ],
)
def test_versions_of_packages(text: str, numbers: tuple[int, ...]) -> None:
    assert package_version(text) == numbers


@pytest.mark.parametrize(
    ("version", "wanted", "is_it"),
    [
        ("7.2.22", "7.2", True),
        ("7.2.22", "7", True),
        ("7.2.22", "7.2.2", False),
        ("7.2", "7.2.22", False),
        ("10.0.13", "1", False),
        ("", "7", False),
    ],
)
def test_a_wish_is_met_number_by_number(version: str, wanted: str, is_it: bool) -> None:
    assert is_asked_for(version, wanted) is is_it
