"""Where an ABI names a processor for qemu, qemu must run that ABI's instructions with it."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.capability import require
from tests.patience import PATIENCE_S
from xbuild.binary.abi import read_abi
from xbuild.binary.arch import Arch, arch_named
from xbuild.binary.write import tiny_program

ElfMaker = Callable[..., bytes]

SHT_RISCV_ATTRIBUTES = 0x70000003
SHT_GNU_ATTRIBUTES = 0x6FFFFFF5
SHT_MIPS_ABIFLAGS = 0x7000002A
RV64GCV = b"A\x18\0\0\0riscv\0\x01\x0e\0\0\0\x05rv64gcv\0"
ALTIVEC = b"A\0\0\0\x0fgnu\0\x01\0\0\0\x07\x08\x02"
SPE = b"A\0\0\0\x0fgnu\0\x01\0\0\0\x07\x08\x03"
DSPR2_32 = struct.pack(">HBBBBBBIIII", 0, 32, 2, 1, 1, 0, 1, 0, 3, 0, 0)
DSPR2_64 = struct.pack(">HBBBBBBIIII", 0, 64, 2, 2, 2, 0, 1, 0, 3, 0, 0)

CASES = {
    "riscv-vsetvli": ("riscv64", 5, "d772050013000000", (SHT_RISCV_ATTRIBUTES, RV64GCV)),
    "ppc-vxor": ("ppc", 0, "100004c4", (SHT_GNU_ATTRIBUTES, ALTIVEC)),
    "ppc-evxor": ("ppc", 0, "10000216", (SHT_GNU_ATTRIBUTES, SPE)),
    "mips-addqh.w": ("mips", 0x70001005, "7c641418", (SHT_MIPS_ABIFLAGS, DSPR2_32)),
    "mips64-append": ("mips64", 0x80000007, "7c62183100000000", (SHT_MIPS_ABIFLAGS, DSPR2_64)),
    "mips64-baddu": ("mips64", 0x808B0007, "7064102800000000", None),
    "mipsn32-baddu": ("mipsn32", 0x808B0027, "70641028", None),
    "mips64-gsdmult": ("mips64", 0x80A20007, "7064101100000000", None),
    "mips64-2f-dmultu.g": ("mips64", 0x20A10007, "7064101300000000", None),
    "mips64-2e-dmultu.g": ("mips64", 0x20A00007, "7c64101d00000000", None),
    "mips-r6-lsa": ("mips", 0x90001405, "00641005", None),
    "mips-nan2008-nop": ("mips", 0x70001405, "00000000", None),
    "mips64-r6-dlsa": ("mips64", 0xA0000407, "0064101500000000", None),
    "x86_64-vpaddd": ("x86_64", 0, "c5fdfec090909090", None),
}


def preceded_by(arch: Arch, instructions: bytes, flags: int) -> bytes:
    """A tiny program whose text is code as well, and runs first: so it prints what it executed."""
    program = bytearray(tiny_program(arch, instructions))
    wide = arch.bits == 64
    mark = "<" if arch.order == "little" else ">"
    struct.pack_into(mark + ("Q" if wide else "I"), program, 24, 0x400078 if wide else 0x400054)
    struct.pack_into(mark + "I", program, 48 if wide else 36, flags)
    return bytes(program)


@pytest.mark.parametrize("case", CASES)
def test_the_processor_has_the_instructions(elf: ElfMaker, case: str, tmp_path: Path) -> None:
    name, flags, instructions, section = CASES[case]
    arch = arch_named(name)
    evidence = elf(
        machine=arch.machine,
        bits=arch.bits,
        order=arch.order,
        flags=flags,
        sections=[section] if section else [],
    )
    cpu = read_abi(io.BytesIO(evidence)).cpu
    qemu = shutil.which(f"qemu-{name}-static") or shutil.which(f"qemu-{name}")
    require("qemu", qemu is not None, f"no qemu-user for {name}")
    program = tmp_path / "program"
    program.write_bytes(preceded_by(arch, bytes.fromhex(instructions), flags))
    program.chmod(0o755)
    model = ["-cpu", cpu] if cpu else []
    result = subprocess.run(
        [str(qemu), *model, str(program)], capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert (result.stdout.hex(), result.returncode, result.stderr) == (instructions, 0, b"")
