from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.binary.attributes import read_attributes
from xbuild.errors import DamagedElf

ARM = bytes.fromhex(
    "41 1a000000 6165616269 00 01 10000000 05 372d4100 060a 0741 1c01".replace(" ", "")
)


def vendor(name: bytes, scopes: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "I", 4 + len(name) + 1 + len(scopes)) + name + b"\0" + scopes


def scope(tag: int, pairs: bytes, order: str = "<") -> bytes:
    return bytes((tag,)) + struct.pack(order + "I", 5 + len(pairs)) + pairs


def test_numbers_and_texts_by_tag() -> None:
    assert read_attributes(ARM, "aeabi", "little") == {5: "7-A", 6: 10, 7: 65, 28: 1}


def test_vendors_stand_side_by_side() -> None:
    both = b"A" + vendor(b"gnu", scope(1, b"\x04\x01")) + ARM[1:]
    assert read_attributes(both, "gnu", "little") == {4: 1}
    assert read_attributes(both, "aeabi", "little")[6] == 10
    assert read_attributes(both, "riscv", "little") == {}


def test_only_the_whole_files_scope_counts() -> None:
    section = b"A" + vendor(b"gnu", scope(2, b"\x01\x00\x04\x09") + scope(1, b"\x04\x03"))
    assert read_attributes(section, "gnu", "little") == {4: 3}


def test_compatibility_is_a_number_and_a_text() -> None:
    section = b"A" + vendor(b"aeabi", scope(1, b"\x20\x01gnu\0\x06\x0a"))
    assert read_attributes(section, "aeabi", "little") == {6: 10}


def test_above_32_parity_tells_texts_from_numbers() -> None:
    section = b"A" + vendor(b"aeabi", scope(1, b"\x43" + b"2.09\0" + b"\x42\x01\xc2\x01\x02"))
    assert read_attributes(section, "aeabi", "little") == {67: "2.09", 66: 1, 194: 2}


def test_lengths_are_in_the_files_byte_order() -> None:
    section = b"A" + vendor(b"gnu", scope(1, b"\x04\x02", ">"), ">")
    assert read_attributes(section, "gnu", "big") == {4: 2}
    with pytest.raises(DamagedElf):
        read_attributes(section, "gnu", "little")


@pytest.mark.parametrize("length", range(2, len(ARM)))
def test_a_section_cut_off_anywhere_is_damage(length: int) -> None:
    with pytest.raises(DamagedElf):
        read_attributes(ARM[:length], "aeabi", "little")


@given(st.binary(max_size=200), st.sampled_from(["aeabi", "riscv", "gnu"]))
def test_random_sections_raise_nothing_else(data: bytes, name: str) -> None:
    for section in (data, b"A" + data, b"A" + vendor(name.encode(), data)):
        refused_or_read(section, name)


@given(st.lists(st.tuples(st.integers(1, len(ARM) - 1), st.integers(0, 255)), max_size=6))
def test_mutated_sections_raise_nothing_else(changes: list[tuple[int, int]]) -> None:
    section = bytearray(ARM)
    for place, value in changes:
        section[place] = value
    refused_or_read(bytes(section), "aeabi")


def refused_or_read(section: bytes, name: str) -> None:
    try:
        found = read_attributes(section, name, "little")
    except DamagedElf:
        return
    assert all(isinstance(tag, int) for tag in found)
