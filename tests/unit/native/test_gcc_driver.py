"""What drivers print of their specs is read as they print it."""

from __future__ import annotations

from xbuild.native.gcc_driver import parse_specs

DUMPED = """*asm:
%{mbig-endian:-EB} %{mlittle-endian:-EL}

*cc1plus:


*cross_compile:
1

*link_command:
%{!fsyntax-only:%{!c: first
second}}

"""


def test_specs_are_read_by_name() -> None:
    assert parse_specs(DUMPED) == {
        "asm": "%{mbig-endian:-EB} %{mlittle-endian:-EL}",
        "cc1plus": "",
        "cross_compile": "1",
        "link_command": "%{!fsyntax-only:%{!c: first\nsecond}}",
    }


def test_what_is_no_dump_has_no_specs() -> None:
    assert parse_specs("gcc: error: unrecognized command-line option\n") == {}
