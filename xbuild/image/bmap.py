"""Block maps: which blocks of an image must be written, with a checksum for each range.

The format is bmaptool's, version 2.0 (bmap-tools, docs/README and BmapCreate.py); versions 1.x are
read, too. bmaptool itself makes a map from the holes that the file system under the image happens
to have; ``xbuild image pack`` knows better which blocks are in use, so it writes its own.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from xml.etree import ElementTree

from xbuild.errors import DamagedImage
from xbuild.image.extents import Extent
from xbuild.record import Record

BLOCK = 4096
_LIMIT = 64 << 20  # bytes of a map that is read
_CHECKSUM_ELEMENTS = ("BmapFileChecksum", "BmapFileSHA1")


class MappedRange(Record):
    """Bytes that must be written, and the hexadecimal checksum of them, "" where there is none."""

    extent: Extent
    checksum: str = ""


class BlockMap(Record):
    """A block map: the image's size in bytes, hashlib's name of the checksums, what is mapped."""

    image_size: int
    algorithm: str
    ranges: tuple[MappedRange, ...]


def format_bmap(block_map: BlockMap) -> bytes:
    """Return the XML text of a map in format 2.0. Extents start at multiples of BLOCK."""
    blocks = -(-block_map.image_size // BLOCK)
    mapped = sum(-(-r.extent.length // BLOCK) for r in block_map.ranges)
    rows = "".join(
        f'        <Range chksum="{r.checksum}"> {_span(r.extent)} </Range>\n'
        for r in block_map.ranges
    )
    digits = hashlib.new(block_map.algorithm).digest_size * 2
    text = f"""<?xml version="1.0" ?>
<bmap version="2.0">
    <ImageSize> {block_map.image_size} </ImageSize>
    <BlockSize> {BLOCK} </BlockSize>
    <BlocksCount> {blocks} </BlocksCount>
    <MappedBlocksCount> {mapped} </MappedBlocksCount>
    <ChecksumType> {block_map.algorithm} </ChecksumType>
    <BmapFileChecksum> {"0" * digits} </BmapFileChecksum>
    <BlockMap>
{rows}    </BlockMap>
</bmap>
"""
    own = hashlib.new(block_map.algorithm, text.encode()).hexdigest()
    return text.replace("0" * digits, own, 1).encode()


def _span(extent: Extent) -> str:
    first, last = extent.offset // BLOCK, (extent.end - 1) // BLOCK
    return str(first) if first == last else f"{first}-{last}"


def parse_bmap(text: bytes, label: str) -> BlockMap:
    """Parse a map of version 1.x or 2.x and check its own checksum. Raises DamagedImage.

    ``label`` names the map in messages.
    """
    if len(text) > _LIMIT:
        raise DamagedImage(f"{label} is no block map that xbuild reads")
    try:
        return _parse(ElementTree.fromstring(_without_entities(text)), text, label)
    except (ElementTree.ParseError, ValueError, TypeError) as error:
        raise DamagedImage(f"{label} is damaged: {error}", "make or fetch it again") from error


def _without_entities(text: bytes) -> str:
    """Return the XML as text, so that it is read as UTF-8 whatever it declares. Raises ValueError.

    A map needs no entities, and in another encoding they would not be seen.
    """
    xml = text.decode("utf-8")
    if "\0" in xml or "<!ENTITY" in xml:  # expat takes bytes with zeros for UTF-16 all the same
        raise ValueError("it is no plain text, or defines entities")
    return xml


def _parse(root: ElementTree.Element, text: bytes, label: str) -> BlockMap:
    version = root.get("version", "")
    if root.tag != "bmap" or version.partition(".")[0] not in ("1", "2"):
        raise ValueError(f"it has the version {version or 'none'}")
    algorithm = _word(root, "ChecksumType", "sha1")
    if algorithm not in ("sha1", "sha256", "sha512"):
        raise ValueError(f"it uses the unknown checksum {algorithm}")
    _check_own(root, text, algorithm)
    block, size = int(_word(root, "BlockSize")), int(_word(root, "ImageSize"))
    if block <= 0 or size <= 0:
        raise ValueError("its sizes are nonsense")
    rows = root.find("BlockMap")
    ranges = tuple(_range(row, block, size) for row in (rows if rows is not None else ()))
    for before, after in itertools.pairwise(ranges):
        if after.extent.offset < before.extent.end:
            raise ValueError("its ranges overlap or are out of order")
    if not ranges:
        raise DamagedImage(f"{label} maps no blocks at all", "make it again")
    return BlockMap(size, algorithm, ranges)


def _word(root: ElementTree.Element, tag: str, default: str = "") -> str:
    found = (root.findtext(tag) or "").strip() or default
    if not found:
        raise ValueError(f"it has no {tag}")
    return found


def _check_own(root: ElementTree.Element, text: bytes, algorithm: str) -> None:
    """Compare the map's checksum of itself, taken with zeros in its own place."""
    for tag in _CHECKSUM_ELEMENTS:
        stated = (root.findtext(tag) or "").strip()
        if not stated:
            continue
        blanked = text.replace(stated.encode(), b"0" * len(stated), 1)
        if hashlib.new(algorithm, blanked).hexdigest() != stated:
            raise ValueError("its checksum of itself is wrong")


def _range(row: ElementTree.Element, block: int, size: int) -> MappedRange:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", (row.text or "").strip())
    if match is None:
        raise ValueError(f"{row.text!r} is no range of blocks")
    start = int(match[1]) * block
    end = min((int(match[2] or match[1]) + 1) * block, size)
    if end <= start:
        raise ValueError(f"the range {row.text!r} is outside of the image")
    return MappedRange(Extent(start, end - start), row.get("chksum") or row.get("sha1") or "")
