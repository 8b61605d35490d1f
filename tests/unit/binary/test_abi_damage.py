"""Reading an ABI from files that are no ELF, damaged, or made to take long."""

from __future__ import annotations

import contextlib
import os
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import PATIENCE_S
from tests.unit.binary.conftest import ElfMaker
from tests.unit.binary.sections import (
    PT_GNU_PROPERTY,
    PT_MIPS_ABIFLAGS,
    SHT_GNU_ATTRIBUTES,
    SHT_MIPS_ABIFLAGS,
    SHT_PROC_ATTRIBUTES,
    abi_of,
    abiflags,
    attributes,
)
from xbuild.binary.abi import read_abi
from xbuild.binary.elf import ET_CORE, ET_DYN
from xbuild.errors import DamagedElf, NotElf


def test_other_files_are_not_elf() -> None:
    with pytest.raises(NotElf):
        abi_of(b"#!/bin/sh\n")


def test_a_core_dump_is_identified_without_its_segments(elf: ElfMaker) -> None:
    content = bytearray(elf(elf_type=ET_CORE, segments=[(4, b"note")]))
    struct.pack_into("<H", content, 56, 0xFFFF)  # PN_XNUM
    assert abi_of(bytes(content)).ident.type == ET_CORE


@pytest.mark.parametrize(
    "section",
    [
        b"A\0\0\0\0aeabi\0",
        b"A\x04\0\0\0",
        b"A\xff\xff\xff\x7faeabi\0\x01\x05\0\0\0",
        b"A\x10\0\0\0aeabi\0\x01\0\0\0\0\0",
        b"A\x10\0\0\0aeabi\0\x01\xff\0\0\0\0",
        b"A\x10\0\0\0aeabiaeabiaea",
        attributes("aeabi", {6: 1})[:-1] + b"\xff",
    ],
)
def test_contradictory_attributes_are_damage(elf: ElfMaker, section: bytes) -> None:
    with pytest.raises(DamagedElf):
        abi_of(elf(machine=40, bits=32, sections=[(SHT_PROC_ATTRIBUTES, section)]))


def test_attributes_of_other_vendors_and_versions_are_none_of_ours(elf: ElfMaker) -> None:
    for section in (attributes("ARM", {6: 99}), b"B" + bytes(20), b""):
        abi = abi_of(elf(machine=40, bits=32, sections=[(SHT_PROC_ATTRIBUTES, section)]))
        assert abi.level is None


def test_a_section_beyond_the_end_is_damage(elf: ElfMaker) -> None:
    content = elf(
        machine=40, bits=32, sections=[(SHT_PROC_ATTRIBUTES, attributes("aeabi", {6: 4}))]
    )
    with pytest.raises(DamagedElf):
        abi_of(content[:-1])
    broken = bytearray(content)
    struct.pack_into("<I", broken, len(content) - 40 + 16, 0x7FFFFFFF)  # sh_offset
    with pytest.raises(DamagedElf):
        abi_of(bytes(broken))


def test_a_section_of_1_gib_is_not_read(elf: ElfMaker, tmp_path: object) -> None:
    content = bytearray(
        elf(machine=40, bits=32, sections=[(SHT_PROC_ATTRIBUTES, attributes("aeabi", {6: 4}))])
    )
    struct.pack_into("<I", content, len(content) - 40 + 20, 1 << 30)  # sh_size
    path = os.path.join(str(tmp_path), "sparse")
    with open(path, "wb+") as file:
        file.write(content)
        file.truncate(1 << 31)
        with pytest.raises(DamagedElf, match="1073741824 bytes"):
            read_abi(file)


def test_section_headers_without_size_are_damage(elf: ElfMaker) -> None:
    content = bytearray(elf(sections=[(1, b"x")]))
    struct.pack_into("<HH", content, 58, 0, 65535)  # e_shentsize, e_shnum: the first, for ever
    started = time.monotonic()
    with pytest.raises(DamagedElf):
        abi_of(bytes(content))
    assert time.monotonic() - started < PATIENCE_S


def test_a_section_table_beyond_the_end_is_damage(elf: ElfMaker) -> None:
    content = bytearray(elf(sections=[(1, b"x")]))
    struct.pack_into("<Q", content, 40, 1 << 20)  # e_shoff
    struct.pack_into("<H", content, 62, 0xFFFF)  # e_shstrndx: SHN_XINDEX
    with pytest.raises(DamagedElf):
        abi_of(bytes(content))


def test_a_file_without_section_headers_is_whole(elf: ElfMaker) -> None:
    content = bytearray(elf(machine=243, flags=5, sections=[(1, b"x")]))
    struct.pack_into("<H", content, 60, 0)  # e_shnum
    assert abi_of(bytes(content)).name == "lp64d"
    struct.pack_into("<Q", content, 40, 0)  # e_shoff, as sstrip leaves it
    struct.pack_into("<H", content, 58, 0)
    assert abi_of(bytes(content)).name == "lp64d"


def test_more_sections_than_there_is_time_for_are_damage(elf: ElfMaker, tmp_path: object) -> None:
    content = bytearray(elf(sections=[(1, b"x")]))
    struct.pack_into("<H", content, 60, 65535)
    path = os.path.join(str(tmp_path), "sparse")
    with open(path, "wb+") as file:
        file.write(content)
        file.truncate(1 << 31)
        started = time.monotonic()
        with pytest.raises(DamagedElf, match="too long"):
            read_abi(file)
    assert time.monotonic() - started < PATIENCE_S


@given(data=st.data())
def test_mutations_raise_nothing_else(elf: ElfMaker, data: st.DataObject) -> None:
    machine, bits, order = data.draw(
        st.sampled_from(
            [(40, 32, "little"), (243, 64, "little"), (8, 32, "big"), (62, 64, "little")]
        )
    )
    note = struct.pack("<III4sIIII", 4, 16, 5, b"GNU\0", 0xC0008002, 4, 3, 0)
    content = bytearray(
        elf(
            machine=machine,
            bits=bits,
            order=order,
            elf_type=ET_DYN,
            segments=[(PT_GNU_PROPERTY, note), (PT_MIPS_ABIFLAGS, abiflags(32, 2, 1, order=order))],
            sections=[
                (SHT_PROC_ATTRIBUTES, attributes("aeabi", {5: "7-A", 6: 10, 28: 1}, order)),
                (SHT_GNU_ATTRIBUTES, attributes("gnu", {4: 1, 8: 2}, order)),
                (SHT_MIPS_ABIFLAGS, abiflags(64, 6, 7, order=order)),
            ],
        )
    )
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(7, len(content) - 1), st.integers(0, 255)), max_size=8)
    ):
        content[place] = value
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    started = time.monotonic()
    with contextlib.suppress(NotElf, DamagedElf):
        abi_of(bytes(content[:length]))
    assert time.monotonic() - started < PATIENCE_S
