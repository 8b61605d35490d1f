"""The shipped binfmt.d files against the architecture table, and every rule against every header.

A header here is what the kernel compares: the first bytes of a file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.binary.arch import ARCHES, UNEMULATED, Arch, arch_named
from xbuild.binary.elf import ET_CORE, ET_DYN, ET_EXEC, ET_REL
from xbuild.emulation.rules import (
    Registration,
    magic_and_mask,
    parse_registration,
    rule_matches,
    sample_header,
)
from xbuild.resources import data_directory

CHECKOUT = Path(__file__).parents[3]
HOSTS = ("x86_64", "aarch64")
E_FLAGS = {32: 36, 64: 48}
by_name = pytest.mark.parametrize("arch", ARCHES, ids=lambda a: a.name)


def shipped_lines(arch: Arch) -> list[bytes]:
    text = (Path(data_directory("binfmt")) / f"{arch.name}.conf").read_bytes()
    return [line for line in text.splitlines() if line and line[:1] not in b"#;"]


def shipped_rule(arch: Arch) -> Registration:
    return parse_registration(shipped_lines(arch)[0])


RULES = {arch.name: shipped_rule(arch) for arch in ARCHES}


@st.composite
def headers(draw: st.DrawFn, arch: Arch, types: tuple[int, ...] = (ET_EXEC, ET_DYN)) -> bytes:
    """Programs of ``arch`` with all that a rule has no business looking at drawn at random."""
    header = bytearray(sample_header(arch, elf_type=draw(st.sampled_from(types))))
    header[7:16] = draw(st.binary(min_size=9, max_size=9))
    free = draw(st.integers(0, 2**32 - 1)) & ~arch.flags_mask
    at = E_FLAGS[arch.bits]
    header[at : at + 4] = (free | arch.flags_value).to_bytes(4, arch.order)
    header[24:at] = draw(st.binary(min_size=at - 24, max_size=at - 24))
    return bytes(header)


def test_there_is_one_file_for_each_architecture_and_nothing_else() -> None:
    names = sorted(path.name for path in Path(data_directory("binfmt")).iterdir())
    assert names == sorted(f"{arch.name}.conf" for arch in ARCHES)


@by_name
def test_a_file_holds_comments_and_one_line(arch: Arch) -> None:
    assert len(shipped_lines(arch)) == 1


@by_name
def test_a_file_says_what_the_table_says(arch: Arch) -> None:
    rule = shipped_rule(arch)
    assert (rule.magic, rule.mask) == magic_and_mask(arch)
    assert rule.offset == 0
    assert rule.name == f"xbuild-{arch.name}"
    assert rule.interpreter == f"/usr/bin/qemu-{arch.name}-static"
    assert rule.line() == shipped_lines(arch)[0]


@by_name
def test_a_host_wide_rule_passes_no_credentials_on(arch: Arch) -> None:
    assert set(shipped_rule(arch).flags) == set("POF")


@by_name
def test_a_rule_looks_at_no_more_than_it_must(arch: Arch) -> None:
    rule = shipped_rule(arch)
    assert len(rule.magic) == (E_FLAGS[arch.bits] + 4 if arch.flags_mask else 20)
    assert rule.mask[:20] == b"\xff" * 7 + bytes(9) + (
        b"\xfe\xff\xff\xff" if arch.order == "little" else b"\xff\xfe\xff\xff"
    )
    assert all(bit & ~care == 0 for bit, care in zip(rule.magic, rule.mask, strict=True))


@by_name
@pytest.mark.parametrize("elf_type", [ET_EXEC, ET_DYN])
def test_a_rule_accepts_its_own_programs(arch: Arch, elf_type: int) -> None:
    assert rule_matches(RULES[arch.name], sample_header(arch, elf_type=elf_type))


@by_name
def test_a_rule_accepts_appimages(arch: Arch) -> None:
    header = sample_header(arch)
    assert rule_matches(RULES[arch.name], header[:8] + b"AI\x02" + header[11:])


@by_name
@pytest.mark.parametrize("elf_type", [ET_REL, ET_CORE])
def test_a_rule_refuses_what_is_no_program(arch: Arch, elf_type: int) -> None:
    assert not rule_matches(RULES[arch.name], sample_header(arch, elf_type=elf_type))


@pytest.mark.parametrize("host", HOSTS)
def test_no_rule_matches_a_hosts_own_programs(host: str) -> None:
    own = [sample_header(arch_named(host), elf_type=t) for t in (ET_EXEC, ET_DYN)]
    caught = [name for name, rule in RULES.items() if any(rule_matches(rule, h) for h in own)]
    assert caught == [host]


def test_no_rule_matches_an_architecture_that_qemu_does_not_run() -> None:
    caught = [
        (name, arch.name)
        for name, rule in RULES.items()
        for arch in UNEMULATED
        if rule_matches(rule, sample_header(arch))
    ]
    assert caught == []


@given(st.data())
def test_every_header_is_accepted_by_the_rule_of_its_architecture_alone(
    data: st.DataObject,
) -> None:
    arch = data.draw(st.sampled_from(ARCHES), label="arch")
    header = data.draw(headers(arch), label="header")
    assert [name for name, rule in RULES.items() if rule_matches(rule, header)] == [arch.name]


@given(st.binary(max_size=128))
def test_no_rule_matches_what_is_no_elf_file(header: bytes) -> None:
    if header[:4] != b"\x7fELF":
        assert not any(rule_matches(rule, header) for rule in RULES.values())


def test_the_generator_would_write_what_is_there() -> None:
    run = [sys.executable, str(CHECKOUT / "script" / "binfmt-files"), "--check"]
    result = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
