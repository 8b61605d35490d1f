"""Block maps: what is written is read again, and damage is noticed."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.errors import DamagedImage
from xbuild.image.bmap import BLOCK, BlockMap, MappedRange, format_bmap, parse_bmap
from xbuild.image.extents import Extent

SUM = hashlib.sha256(b"").hexdigest()
OLD = b"""<?xml version="1.0" ?>
<bmap version="1.3">
    <ImageSize> 10000 </ImageSize>
    <BlockSize> 4096 </BlockSize>
    <BlockMap>
        <Range sha1="da39a3ee5e6b4b0d3255bfef95601890afd80709"> 0 </Range>
        <Range> 2 </Range>
    </BlockMap>
</bmap>
"""


@st.composite
def maps(draw: st.DrawFn) -> BlockMap:
    gaps = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=20))
    ranges, block = [], 0
    for gap, length in gaps:
        block += gap
        ranges.append(MappedRange(Extent(block * BLOCK, length * BLOCK), SUM))
        block += length
    return BlockMap(block * BLOCK + draw(st.integers(0, 5 * BLOCK)), "sha256", tuple(ranges))


@given(maps())
def test_a_map_is_read_as_it_was_written(block_map: BlockMap) -> None:
    assert parse_bmap(format_bmap(block_map), "map") == block_map


@given(maps(), st.data())
def test_any_changed_byte_is_noticed(block_map: BlockMap, data: st.DataObject) -> None:
    text = bytearray(format_bmap(block_map))
    at = data.draw(st.integers(text.index(b"<ImageSize>"), len(text) - 1))
    text[at] ^= data.draw(st.sampled_from([1, 2, 4, 8]))
    with pytest.raises(DamagedImage):
        parse_bmap(bytes(text), "map")


def test_last_range_ends_with_the_image() -> None:
    ranges = (MappedRange(Extent(0, BLOCK + 10), SUM),)
    block_map = BlockMap(BLOCK + 10, "sha256", ranges)
    assert parse_bmap(format_bmap(block_map), "map") == block_map


def test_older_versions_are_read() -> None:
    found = parse_bmap(OLD, "map")
    assert found.algorithm == "sha1"
    assert [r.extent for r in found.ranges] == [Extent(0, 4096), Extent(8192, 10000 - 8192)]
    assert [len(r.checksum) for r in found.ranges] == [40, 0]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html/>",
        OLD.replace(b"1.3", b"9.0"),
        OLD.replace(b" 2 ", b" 0-1 "),
        OLD.replace(b" 2 ", b" 77 "),
        OLD.replace(b" 2 ", b" two "),
        OLD.replace(b"4096", b"0"),
        OLD.replace(b"10000", b"-1"),
        OLD.replace(b"<BlockSize> 4096 </BlockSize>", b""),
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + OLD,
    ],
)
def test_nonsense_is_refused(text: bytes) -> None:
    with pytest.raises(DamagedImage):
        parse_bmap(text, "map")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "cp037"])
def test_entities_are_refused_however_they_are_encoded(encoding: str) -> None:
    """Eight of a kind in one another would be more than memory holds."""
    declaration = f'<?xml version="1.0" encoding="{encoding}"?>'
    rest = OLD.decode().partition("?>")[2].replace('"1.3"', '"&v;"')
    body = f'<!DOCTYPE bmap [<!ENTITY v "1.3">]>{rest}'
    text = declaration.encode() + body.encode(encoding)
    if encoding.startswith("utf"):
        text = (declaration + body).encode(encoding)
    with pytest.raises(DamagedImage):
        parse_bmap(text, "map")
