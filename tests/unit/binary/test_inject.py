"""A segment more and another entry point: programs that go on to do what they did."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.capability import require
from xbuild.binary.arch import host_arch
from xbuild.binary.inject import inject
from xbuild.errors import DamagedElf

BUSYBOX = "/bin/busybox"  # ET_EXEC with Debian, as qemu is with some
# x86_64: mov rax, [rsp]; cmp rax, 1; jne on; mov edi, 42; mov eax, 60; syscall;
# on: lea rax, [rip+original]; add rax, [rax]; jmp rax. With no argument it ends with status 42.
CODE = bytes.fromhex(
    "488b0424 4883f801 750c bf2a000000 b83c000000 0f05 488d050b000000 480300 ffe0 9090".replace(
        " ", ""
    )
)


def programs() -> list[str]:
    found = [BUSYBOX, shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64") or ""]
    return [path for path in found if os.path.exists(path)]


def run(program: bytes, place: str, *arguments: str) -> tuple[int, str]:
    with open(place, "wb") as file:
        file.write(program)
    os.chmod(place, 0o755)
    done = subprocess.run([place, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("number", range(2), ids=["exec", "static-pie"])
def test_code_runs_first_and_the_program_after_it(number: int, tmp_path: Path) -> None:
    require("x86_64", host_arch().name == "x86_64", "the code is for x86_64")
    require("busybox, qemu", len(programs()) == 2, "the programs to change")
    with open(programs()[number], "rb") as file:
        program = file.read()
    changed = inject(program, CODE)
    place = f"{tmp_path}/busybox"
    assert run(changed, place) == (42, "")
    assert run(changed, place, "--help") == run(program, place, "--help")
    assert run(changed, place, "--version") == run(program, place, "--version")


def test_only_headers_change_and_the_end() -> None:
    require("busybox", os.path.exists(BUSYBOX), "no static busybox on this host")
    with open(BUSYBOX, "rb") as file:
        program = file.read()
    changed = inject(program, CODE)
    headers = 64 + 56 * struct.unpack_from("<H", program, 56)[0]
    assert changed[headers : len(program)] == program[headers:]
    assert len(changed) < len(program) + 4096 + len(CODE) + 16
    loads = [s for s in _segments(changed) if s[0] == 1]
    assert [s[3] for s in loads] == sorted(s[3] for s in loads)
    assert len(loads) == 1 + sum(s[0] == 1 for s in _segments(program))


def _segments(program: bytes) -> list[tuple[int, ...]]:
    at, count = struct.unpack_from("<Q", program, 32)[0], struct.unpack_from("<H", program, 56)[0]
    return [struct.unpack_from("<IIQQQQQQ", program, at + 56 * i) for i in range(count)]


def _with(program: bytes, offset: int, content: bytes) -> bytes:
    return program[:offset] + content + program[offset + len(content) :]


def test_what_is_no_static_program_with_a_note_is_refused() -> None:
    require("busybox", os.path.exists(BUSYBOX), "no static busybox on this host")
    with open(BUSYBOX, "rb") as file:
        program = file.read()
    without = program
    for number, segment in enumerate(_segments(program)):
        if segment[0] == 4:
            without = _with(without, 64 + 56 * number, bytes(4))
    with pytest.raises(DamagedElf, match="no PT_NOTE"):
        inject(without, CODE)
    for damaged in (
        b"",
        b"\x7fELF",
        program[:100],
        b"#!/bin/sh\n" + bytes(200),
        _with(program, 4, b"\1"),
        _with(program, 5, b"\2"),
        _with(program, 54, b"\7"),
        _with(program, 56, b"\xff\xff"),
        _with(program, 32, b"\xff" * 8),
    ):
        with pytest.raises(DamagedElf):
            inject(damaged, CODE)
