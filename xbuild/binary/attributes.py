"""Build attributes: what a toolchain noted in .ARM.attributes, .riscv.attributes, .gnu.attributes.

Scope: the common container and the tags of one vendor; their meaning is ``xbuild.binary.abi``'s.
Our own parser, as pyelftools reads only two of the three, and loops for ever on a subsection of
length zero. Formats: Addenda to the Arm ABI, "Build attributes"; RISC-V ELF psABI, "Attributes";
GNU as manual, "Object attributes".
"""

from __future__ import annotations

from xbuild.errors import DamagedElf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.record import ByteOrder

_FORMAT_VERSION = b"A"
_TAG_FILE = 1
_TAG_COMPATIBILITY = 32  # a number and a string
_ULEB128_LIMIT = 5  # bytes: 35 bits
_ARM_TEXT_TAGS = (4, 5)  # Tag_CPU_raw_name, Tag_CPU_name
_ARM_PARITY_FROM = 32  # below, Arm's tags are numbers, whatever their parity


def read_attributes(data: bytes, vendor: str, order: ByteOrder) -> dict[int, int | str]:
    """Return the attributes that ``vendor`` ("aeabi", "riscv", "gnu") gave the whole file, by tag.

    Empty when there are none. Raises DamagedElf for a section that contradicts itself.
    """
    found: dict[int, int | str] = {}
    if data[:1] != _FORMAT_VERSION:
        return found
    position = 1
    while position < len(data):
        end = position + _length(data, position, order, least=5)
        if end > len(data):
            raise DamagedElf("the build attributes are cut off")
        name, inside = _text(data, position + 4, end)
        if name == vendor:
            found.update(_file_attributes(data, inside, end, vendor, order))
        position = end
    return found


def _file_attributes(
    data: bytes, position: int, end: int, vendor: str, order: ByteOrder
) -> dict[int, int | str]:
    found: dict[int, int | str] = {}
    while position < end:
        scope, at = _number(data, position, end)
        stop = position + _length(data, at, order, least=at + 4 - position)
        if stop > end:
            raise DamagedElf("a build attribute subsection is longer than its section")
        if scope == _TAG_FILE:
            found.update(_pairs(data, at + 4, stop, vendor))
        position = stop
    return found


def _pairs(data: bytes, position: int, end: int, vendor: str) -> dict[int, int | str]:
    found: dict[int, int | str] = {}
    while position < end:
        tag, position = _number(data, position, end)
        if tag == _TAG_COMPATIBILITY:
            _, position = _number(data, position, end)
            _, position = _text(data, position, end)
        elif _is_text(tag, vendor):
            found[tag], position = _text(data, position, end)
        else:
            found[tag], position = _number(data, position, end)
    return found


def _is_text(tag: int, vendor: str) -> bool:
    if vendor == "aeabi" and tag < _ARM_PARITY_FROM:
        return tag in _ARM_TEXT_TAGS
    return tag % 2 == 1


def _length(data: bytes, position: int, order: ByteOrder, *, least: int) -> int:
    """Return a 4-byte length that includes what stands before its end: never less than that."""
    length = int.from_bytes(data[position : position + 4], order)
    if position + 4 > len(data) or length < least:
        raise DamagedElf("the build attributes have a length that cannot be")
    return length


def _number(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return an unsigned LEB128 number and the position after it."""
    value = 0
    for count in range(_ULEB128_LIMIT):
        if position + count >= end:
            break
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, position + count + 1
    raise DamagedElf("a build attribute is cut off or too large")


def _text(data: bytes, position: int, end: int) -> tuple[str, int]:
    stop = data.find(b"\0", position, end)
    if stop < 0:
        raise DamagedElf("a name in the build attributes has no end")
    return data[position:stop].decode("ascii", "replace"), stop + 1
