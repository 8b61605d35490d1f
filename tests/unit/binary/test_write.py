from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capability import require
from tests.patience import PATIENCE_S
from xbuild.binary.arch import ARCHES, UNEMULATED, Arch, arch_named, arch_of, host_arch
from xbuild.binary.arch import runs_natively32 as native32
from xbuild.binary.elf import ET_EXEC, Ident, read_program
from xbuild.binary.write import TEXT_LIMIT, has_tiny_program, tiny_program
from xbuild.errors import UnknownArchitecture

by_name = pytest.mark.parametrize("arch", ARCHES, ids=lambda a: a.name)


def qemu_for(arch: Arch) -> str:
    found = shutil.which(f"qemu-{arch.name}-static") or shutil.which(f"qemu-{arch.name}")
    require("qemu", found is not None, f"no qemu-user for {arch.name}")
    return str(found)


def run(argv: list[str]) -> tuple[bytes, int]:
    result = subprocess.run(argv, capture_output=True, timeout=PATIENCE_S, check=False)
    assert result.stderr == b""
    return result.stdout, result.returncode


def written(directory: Path, content: bytes) -> str:
    path = directory / "tiny"
    path.write_bytes(content)
    path.chmod(0o755)
    return str(path)


@by_name
def test_every_emulated_architecture_has_a_tiny_program(arch: Arch) -> None:
    assert has_tiny_program(arch)


@by_name
@pytest.mark.parametrize(("text", "status"), [(b"xbuild\n", 42), (b"", 255), (b"~" * 127, 0)])
def test_qemu_runs_the_program(arch: Arch, text: bytes, status: int, tmp_path: Path) -> None:
    program = written(tmp_path, tiny_program(arch, text, status=status))
    assert run([qemu_for(arch), program]) == (text, status)


def test_the_host_runs_its_own_program(tmp_path: Path) -> None:
    program = written(tmp_path, tiny_program(host_arch(), b"native\n", status=3))
    assert run([program]) == (b"native\n", 3)


def test_the_host_runs_its_32_bit_program_where_its_kernel_can(tmp_path: Path) -> None:
    arch = native32(host_arch())
    require("native32", arch is not None, f"{host_arch().name} has no 32-bit mode")
    assert arch is not None
    program = written(tmp_path, tiny_program(arch, b"native32\n", status=4))
    try:
        outcome = run([program])
    except OSError as error:
        require("native32", False, f"this kernel runs no {arch.name}: {error.strerror}")
    assert outcome == (b"native32\n", 4)


@by_name
def test_the_file_is_small_static_and_of_its_architecture(arch: Arch) -> None:
    content = tiny_program(arch, b"ok\n")
    program = read_program(io.BytesIO(content))
    assert arch_of(program.ident) is arch
    assert program.ident.type == ET_EXEC
    assert program.is_static
    assert program.end_bytes == len(content)
    assert 100 <= len(content) <= 170


@by_name
@given(text=st.binary(max_size=TEXT_LIMIT), status=st.integers(0, 255))
def test_only_two_numbers_and_the_text_vary(arch: Arch, text: bytes, status: int) -> None:
    content = tiny_program(arch, text, status=status)
    start = 84 if arch.bits == 32 else 120
    assert content[start : start + len(text)] == text
    assert len(content) == len(tiny_program(arch, bytes(len(text))))


@pytest.mark.parametrize(("text", "status"), [(b"x" * (TEXT_LIMIT + 1), 0), (b"", -1), (b"", 256)])
def test_what_does_not_fit_an_operand_is_refused(text: bytes, status: int) -> None:
    with pytest.raises(ValueError, match="127 bytes"):
        tiny_program(arch_named("sh4"), text, status=status)


@pytest.mark.parametrize("arch", UNEMULATED, ids=lambda a: a.name)
def test_an_architecture_without_code_is_named(arch: Arch) -> None:
    assert not has_tiny_program(arch)
    with pytest.raises(UnknownArchitecture, match=arch.common_name):
        tiny_program(arch, b"")


def test_e_flags_name_the_abi() -> None:
    def flags(name: str) -> int:
        return ident(name).flags

    def ident(name: str) -> Ident:
        return read_program(io.BytesIO(tiny_program(arch_named(name), b""))).ident

    assert flags("arm") == 0x05000000
    assert flags("mips") & 0xF020 == 0x1000
    assert flags("mipsn32") & 0xF020 == 0x0020
    assert flags("ppc64") & 3 == 2
