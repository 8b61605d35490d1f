from __future__ import annotations

import contextlib
import io
import struct
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import PATIENCE_S
from xbuild.binary.arch import ARCHES, arch_of, host_arch
from xbuild.binary.elf import (
    ET_CORE,
    ET_DYN,
    ET_EXEC,
    ET_REL,
    PT_DYNAMIC,
    PT_INTERP,
    PT_LOAD,
    SNIFF_BYTES,
    read_program,
    sniff,
)
from xbuild.binary.write import tiny_program
from xbuild.errors import DamagedElf, NotElf

ElfMaker = Callable[..., bytes]

NEEDED = struct.pack("<qQqQ", 1, 1, 0, 0)
NOTHING_NEEDED = struct.pack("<qQqQ", 0x6FFFFFFB, 0x8000001, 0, 0)  # static-pie: DT_FLAGS_1 alone
LOADER = b"/lib64/ld-linux-x86-64.so.2\0"
SEEDS = [tiny_program(arch, b"seed\n") for arch in ARCHES]


class Endless(io.RawIOBase):
    """A file of any content at its start, then zeros without end, that counts what is asked of it.

    As a sparse file, whose size is no bound on what a header may claim.
    """

    SIZE = 1 << 62

    def __init__(self, start: bytes) -> None:
        self.start = start
        self.place = 0
        self.asked = 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.place = self.SIZE if whence == 2 else offset
        return self.place

    def read(self, size: int = -1, /) -> bytes:
        assert size >= 0
        self.asked += size
        assert self.asked < 1 << 20
        data = self.start[self.place : self.place + size].ljust(size, b"\0")
        self.place += size
        return data


def with_field(content: bytes, offset: int, layout: str, value: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(layout, changed, offset, value)
    return bytes(changed)


# sniff


@pytest.mark.parametrize("arch", ARCHES, ids=lambda a: a.name)
def test_sniff_reads_the_identity(arch: object) -> None:
    content = tiny_program(arch, b"x")  # type: ignore[arg-type]  # parametrize loses the type
    ident = sniff(content[:SNIFF_BYTES])
    assert ident is not None
    assert arch_of(ident) is arch
    assert (ident.type, ident.osabi, ident.abiversion) == (ET_EXEC, 0, 0)
    assert ident.is_program


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x7fELF",
        b"MZ" + bytes(62),
        b"#!/bin/sh\n" + bytes(60),
        SEEDS[0][:63],
        with_field(SEEDS[0], 4, "B", 3),
        with_field(SEEDS[0], 5, "B", 0),
        with_field(SEEDS[0], 6, "B", 2),
    ],
    ids=["empty", "magic-only", "pe", "script", "short", "class", "data", "version"],
)
def test_sniff_refuses_what_is_no_whole_header(header: bytes) -> None:
    assert sniff(header) is None


def test_sniff_takes_padding_for_no_matter() -> None:
    plain = sniff(SEEDS[0])
    marked = sniff(SEEDS[0][:8] + b"AI\x02" + SEEDS[0][11:])
    assert plain is not None
    assert marked is not None
    assert (marked.machine, marked.abiversion) == (plain.machine, ord("A"))


@given(st.binary(max_size=256))
def test_sniff_never_raises(header: bytes) -> None:
    assert sniff(header) is None or header[:4] == b"\x7fELF"


@given(st.binary(max_size=250))
def test_sniff_never_raises_after_the_magic(rest: bytes) -> None:
    ident = sniff(b"\x7fELF" + rest)
    if ident is not None:
        arch = arch_of(ident)
        assert arch is None or arch.admits(ident)


# read_program


def test_a_tiny_program_is_static_and_whole() -> None:
    program = read_program(io.BytesIO(SEEDS[0]))
    assert program.is_static
    assert not program.is_dynamic
    assert program.interpreter is None
    assert program.end_bytes == len(SEEDS[0])


def test_this_python_is_what_the_host_runs() -> None:
    with open(sys.executable, "rb") as file:
        program = read_program(file)
        assert arch_of(program.ident) is host_arch()
        assert program.end_bytes <= file.seek(0, 2)


def test_a_dynamic_program_names_its_interpreter(elf: ElfMaker) -> None:
    content = elf(elf_type=ET_DYN, segments=[(PT_INTERP, LOADER), (PT_DYNAMIC, NEEDED)])
    program = read_program(io.BytesIO(content))
    assert program.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert program.is_dynamic
    assert not program.is_static


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["little", "big"])
def test_both_classes_and_orders_are_read(elf: ElfMaker, bits: int, order: str) -> None:
    mark = "<" if order == "little" else ">"
    dynamic = struct.pack(mark + ("iIiI" if bits == 32 else "qQqQ"), 1, 7, 0, 0)
    segments = [(PT_LOAD, b"x" * 40), (PT_INTERP, b"/lib/ld.so.1\0"), (PT_DYNAMIC, dynamic)]
    program = read_program(io.BytesIO(elf(bits=bits, order=order, machine=8, segments=segments)))
    assert (program.ident.bits, program.ident.order) == (bits, order)
    assert program.interpreter == "/lib/ld.so.1"
    assert program.is_dynamic
    assert program.end_bytes == (52 + 96 if bits == 32 else 64 + 168) + 40


def test_a_library_needs_others_without_an_interpreter(elf: ElfMaker) -> None:
    content = elf(elf_type=ET_DYN, segments=[(PT_DYNAMIC, NEEDED)])
    program = read_program(io.BytesIO(content))
    assert program.is_dynamic
    assert program.interpreter is None


def test_static_pie_is_static(elf: ElfMaker) -> None:
    content = elf(elf_type=ET_DYN, segments=[(PT_DYNAMIC, NOTHING_NEEDED)])
    assert read_program(io.BytesIO(content)).is_static


def test_an_interpreter_that_is_no_utf8_survives(elf: ElfMaker) -> None:
    program = read_program(io.BytesIO(elf(segments=[(PT_INTERP, b"/lib/\xff\0")])))
    assert program.interpreter is not None
    assert program.interpreter.encode("utf-8", "surrogateescape") == b"/lib/\xff"


@pytest.mark.parametrize("elf_type", [ET_REL, ET_CORE])
def test_core_dumps_and_objects_are_named_not_run(elf: ElfMaker, elf_type: int) -> None:
    content = elf(elf_type=elf_type, segments=[(PT_INTERP, LOADER)])
    program = read_program(io.BytesIO(with_field(content, 56, "<H", 0xFFFF)))  # PN_XNUM
    assert program.ident.type == elf_type
    assert not program.ident.is_program
    assert not program.is_static


@pytest.mark.parametrize("content", [b"", b"MZ\x90\0", b"\x7fEL", b"#!/bin/sh\n"])
def test_other_files_are_not_elf(content: bytes) -> None:
    with pytest.raises(NotElf):
        read_program(io.BytesIO(content))


@pytest.mark.parametrize("length", [4, 20, 63, 64, 100, 119])
def test_a_file_cut_off_in_its_headers_is_damaged(length: int) -> None:
    with pytest.raises(DamagedElf):
        read_program(io.BytesIO(SEEDS[0][:length]))


def test_a_file_cut_off_later_is_shorter_than_its_segments() -> None:
    assert read_program(io.BytesIO(SEEDS[0][:130])).end_bytes > 130


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"/lib/ld.so", "not a string"),
        (b"\0\0", "not a string"),
        (b"/", "1 bytes"),
        (b"/" * 4096 + b"\0", "4097 bytes"),
    ],
)
def test_a_nonsense_interpreter_is_damage(elf: ElfMaker, text: bytes, reason: str) -> None:
    with pytest.raises(DamagedElf, match=reason):
        read_program(io.BytesIO(elf(segments=[(PT_INTERP, text)])))


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [(56, "<H", 65535), (56, "<H", 1200), (54, "<H", 0), (54, "<H", 32), (32, "<Q", 2**64 - 1)],
    ids=["phnum", "64KiB", "no-phentsize", "phentsize", "phoff"],
)
def test_impossible_program_headers_are_damage(offset: int, layout: str, value: int) -> None:
    with pytest.raises(DamagedElf):
        read_program(io.BytesIO(with_field(SEEDS[0], offset, layout, value)))


def test_an_interpreter_of_4_gib_is_not_read(elf: ElfMaker) -> None:
    content = with_field(elf(segments=[(PT_INTERP, LOADER)]), 64 + 32, "<Q", 1 << 32)
    with pytest.raises(DamagedElf, match="4294967296 bytes"):
        read_program(Endless(content))


def test_a_dynamic_section_without_end_is_read_to_a_limit(elf: ElfMaker) -> None:
    content = with_field(elf(segments=[(PT_DYNAMIC, NEEDED)]), 64 + 32, "<Q", 1 << 40)
    unending = content.replace(NEEDED, struct.pack("<qQ", 5, 5) * 9000)
    file = Endless(unending)
    assert not read_program(file).is_dynamic
    assert file.asked < 140_000


@given(st.binary(max_size=400))
def test_random_bytes_are_refused_in_words(content: bytes) -> None:
    with pytest.raises((NotElf, DamagedElf)):
        read_program(io.BytesIO(content))


@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(4, 180), st.integers(0, 255)), max_size=12),
    length=st.integers(0, 300),
)
def test_mutations_raise_nothing_else_and_ask_for_little(
    seed: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(seed)
    for place, value in changes:
        content[place % len(content)] = value
    started = time.monotonic()
    for file in (io.BytesIO(content[:length]), Endless(bytes(content))):
        with contextlib.suppress(NotElf, DamagedElf):
            read_program(file)
    assert time.monotonic() - started < PATIENCE_S
