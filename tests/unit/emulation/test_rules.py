"""The text of registrations. What rules match is tested with the shipped files, in unit/binary."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.binary.arch import ARCHES, Arch, host_arch
from xbuild.emulation.rules import (
    BINPRM_BUF_SIZE,
    MAX_REGISTER_LENGTH,
    Registration,
    derive_rule,
    parse_registration,
    rule_matches,
    sample_header,
)
from xbuild.errors import BinfmtError
from xbuild.record import HostPath, replace

QEMU = HostPath("/usr/bin/qemu")
FOREIGN = [arch for arch in ARCHES if arch != host_arch()]
RULE = Registration("xbuild-x", b"\x7fELF", b"\xff\xff\xff\x0f", 0, QEMU, "POCF")

names = st.text(
    st.characters(codec="utf-8", exclude_characters=":/\n\0"), min_size=1, max_size=60
).filter(lambda name: name not in (".", "..", "register", "status"))
paths = st.text(st.characters(codec="utf-8", exclude_characters=":\n\0"), max_size=60)
subsets_of_flags = st.sets(st.sampled_from("POCF")).map(lambda s: "".join(sorted(s)))


@st.composite
def registrations(draw: st.DrawFn) -> Registration:
    size = draw(st.integers(1, 128))
    return Registration(
        draw(names),
        draw(st.binary(min_size=size, max_size=size)),
        draw(st.binary(min_size=size, max_size=size)),
        draw(st.integers(0, BINPRM_BUF_SIZE - size)),
        HostPath("/" + draw(paths)),
        draw(subsets_of_flags),
    )


@given(registrations())
def test_parsing_a_line_gives_back_the_registration(rule: Registration) -> None:
    assert parse_registration(rule.line()) == rule


@given(registrations())
def test_a_line_has_no_byte_that_the_kernel_reads_as_something_else(rule: Registration) -> None:
    line = rule.line()
    assert b"\n" not in line
    assert b"\0" not in line
    assert line.count(b":") == 7
    assert len(line) <= MAX_REGISTER_LENGTH


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_rule_with_a_line_is_read_back_whatever_its_strings(name: str, path: str) -> None:
    rule = replace(RULE, name=name, interpreter=HostPath(path))
    with contextlib.suppress(BinfmtError):
        assert parse_registration(rule.line()) == rule


@pytest.mark.parametrize(
    "wrong",
    [
        replace(RULE, name="a:b"),
        replace(RULE, name="a/b"),
        replace(RULE, name="a\nb"),
        replace(RULE, name=""),
        replace(RULE, name=".."),
        replace(RULE, name="status"),
        replace(RULE, name="n" * 256),
        replace(RULE, interpreter="qemu"),
        replace(RULE, interpreter="/a:b"),
        replace(RULE, interpreter="/a\nb"),
        replace(RULE, interpreter="/" + "a" * MAX_REGISTER_LENGTH),
        replace(RULE, magic=b"", mask=b""),
        replace(RULE, mask=b"\xff"),
        replace(RULE, offset=BINPRM_BUF_SIZE - 3),
        replace(RULE, offset=-1),
        replace(RULE, flags="X"),
    ],
    ids=repr,
)
def test_what_the_kernel_would_refuse_or_misread_is_refused_here(wrong: Registration) -> None:
    with pytest.raises(BinfmtError):
        wrong.line()


@pytest.mark.parametrize(
    "line", [b"", b":x:E::exe::/bin/sh:", b":x:M:zero:a::/b:", rb":x:M::\xz0::/b:", b"::::"]
)
def test_a_line_of_another_form_is_an_error(line: bytes) -> None:
    with pytest.raises(BinfmtError):
        parse_registration(line)


def test_any_delimiter_and_a_missing_mask_are_understood() -> None:
    rule = parse_registration(rb"|n|M||\x7fE||/a:b|F" + b"\n")
    assert rule == Registration("n", b"\x7fE", b"\xff\xff", 0, HostPath("/a:b"), "F")


def test_a_rule_for_the_hosts_own_architecture_is_refused() -> None:
    with pytest.raises(BinfmtError, match="matches"):
        derive_rule(host_arch(), interpreter=QEMU)


@pytest.mark.parametrize("arch", FOREIGN, ids=lambda a: a.name)
def test_a_derived_rule_has_a_line_and_matches_its_architecture(arch: Arch) -> None:
    rule = derive_rule(arch, interpreter=QEMU)
    assert parse_registration(rule.line()) == rule
    assert rule_matches(rule, sample_header(arch))


def test_a_file_shorter_than_the_rule_counts_as_followed_by_zeros() -> None:
    rule = replace(RULE, magic=b"ab\0\0")
    assert rule_matches(replace(rule, mask=b"\xff" * 4), b"ab")
