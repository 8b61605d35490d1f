"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.cli.sizes import parse_size, size_in_words


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("512b", 512),
        ("4K", 4096),
        ("4k", 4096),
        ("2G", 2 << 30),
        ("2GiB", 2 << 30),
        ("32GB", 32 * 10**9),
        ("1T", 1 << 40),
    ],
)
def test_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "G", "-1", "1.5G", "2X", "9" * 40, "1 G", "4Gi B", "\u0663G"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|range"):
        parse_size(text)


@given(st.integers(1, 1 << 50))
def test_words_are_short(size: int) -> None:
    words = size_in_words(size)
    assert len(words) <= 12
    assert words.count(" ") == 1
