"""Processor models for compiler flags, and what a model lacks."""

from __future__ import annotations

import pytest

from tests.capability import require
from xbuild.binary.arch import arch_named
from xbuild.emulation.interpreters import find_interpreter
from xbuild.emulation.processors import FAMILIES, parse_models, read_demand, shortfall
from xbuild.emulation.trial import run_trial
from xbuild.errors import InterpreterError


@pytest.mark.parametrize(
    ("arch", "flags", "model"),
    [
        ("aarch64", "-O2 -pipe", None),
        ("aarch64", "-mcpu=cortex-a72", "cortex-a72"),
        ("aarch64", "-march=armv8-a+crc+crypto", "cortex-a53"),
        ("aarch64", "-mcpu=cortex-a78 -mtune=cortex-a53", "cortex-a76"),
        ("aarch64", "-march=armv8.2-a", "cortex-a76"),
        ("aarch64", "-march=armv8.2-a+sve", "max"),
        ("aarch64", "-march=armv9-a", "max"),
        ("arm", "-march=armv6kz -mfpu=vfp", "arm1176"),
        ("arm", "-march=armv7-a -mfpu=vfpv3-d16", "cortex-a9"),
        ("arm", "-march=armv7-a -mfpu=neon-vfpv4", "cortex-a15"),
        ("arm", "-mcpu=cortex-a7", "cortex-a7"),
        ("arm", "-mcpu=cortex-a53 -mfpu=neon-fp-armv8", "max"),
        ("ppc64le", "-mcpu=power9", "power9"),
        ("mipsel", "-march=mips32r6", "mips32r6-generic"),
        ("mips", "-march=mips32", "24Kf"),
        ("mips64el", "-march=mips64r2", "MIPS64R2-generic"),
        ("riscv64", "-march=rv64gc", None),
        ("aarch64", "-march=of-tomorrow", None),
        ("aarch64", "-march=", None),
    ],
)
def test_model_for_flags(arch: str, flags: str, model: str | None) -> None:
    assert read_demand(arch, tuple(flags.split())).model == model


@pytest.mark.parametrize(
    ("flags", "model", "said"),
    [
        ("-march=armv8.2-a", "cortex-a53", "-march=armv8.2-a is beyond cortex-a53"),
        ("-mcpu=cortex-a53", "cortex-a72", ""),
        ("-mcpu=cortex-a76", "max", ""),
        ("-mcpu=cortex-a76", "cortex-a76", "which this qemu lacks"),
        ("-march=native", "", "-march=native means the emulated processor"),
        ("-mcpu=native", "max", "-mcpu=native means the emulated processor"),
        ("-O2", "cortex-a53", ""),
    ],
)
def test_what_a_model_lacks(flags: str, model: str, said: str) -> None:
    known = ("cortex-a53", "cortex-a72", "max")
    found = shortfall("aarch64", read_demand("aarch64", (flags,)), model, known)
    assert (said in found) if said else not found


@pytest.mark.parametrize("arch", sorted(FAMILIES))
def test_models_are_known_to_a_real_qemu(arch: str) -> None:
    """Of each level at least one, so that none is a slip of the pen."""
    try:
        interpreter = find_interpreter(arch_named(arch))
    except InterpreterError as error:
        require("qemu", False, error.message)
        return
    text = run_trial((interpreter.path, "-cpu", "help"), executable=interpreter.path).output
    known = parse_models(text.decode())
    family = FAMILIES[arch]
    for level in set(family.models.values()):
        assert {model for model, its in family.models.items() if its == level} & set(known), level
