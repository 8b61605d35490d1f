"""Arithmetic of extents, against sets of bytes."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from xbuild.image.extents import (
    Extent,
    align_outwards,
    copy_extents,
    data_extents,
    merge,
    subtract,
    total_length,
)

EXTENTS = st.lists(st.builds(Extent, st.integers(0, 60), st.integers(1, 20)), max_size=12)


def covered(extents: tuple[Extent, ...] | list[Extent]) -> set[int]:
    return {n for extent in extents for n in range(extent.offset, extent.end)}


def assert_normal(extents: tuple[Extent, ...]) -> None:
    assert all(a.end < b.offset for a, b in itertools.pairwise(extents))
    assert all(extent.length > 0 for extent in extents)


@given(EXTENTS)
def test_merged_extents_are_the_same_bytes(extents: list[Extent]) -> None:
    merged = merge(extents)
    assert covered(merged) == covered(extents)
    assert total_length(merged) == len(covered(extents))
    assert_normal(merged)


@given(EXTENTS, EXTENTS)
def test_subtracting_leaves_the_difference(extents: list[Extent], holes: list[Extent]) -> None:
    left = subtract(extents, holes)
    assert covered(left) == covered(extents) - covered(holes)
    assert_normal(left)


@given(EXTENTS, st.integers(1, 16))
def test_aligned_extents_are_all_blocks_touched(extents: list[Extent], unit: int) -> None:
    limit = 80
    touched = {n // unit for n in covered(extents)}
    aligned = align_outwards(extents, unit, limit)
    assert covered(aligned) == {n for n in range(limit) if n // unit in touched}


def test_data_is_found_between_holes_and_copied(tmp_path: Path) -> None:
    size = 1 << 20
    with open(tmp_path / "a", "w+b") as source, open(tmp_path / "b", "w+b") as target:
        source.write(b"begin")
        source.seek(size // 2)
        source.write(b"middle")
        source.truncate(size)
        source.flush()
        found = list(data_extents(source.fileno(), 0, size))
        assert {0, size // 2} <= covered(found)
        assert list(data_extents(source.fileno(), size // 2 + 3, size // 2 + 5)) == [
            Extent(size // 2 + 3, 2)
        ]
        copy_extents(source.fileno(), target.fileno(), found, shift=4096)
        assert os.pread(target.fileno(), 5, 4096) == b"begin"
        assert os.pread(target.fileno(), 6, 4096 + size // 2) == b"middle"
