"""Texts for CI services: nothing that a command is called or writes can break out of them."""

from __future__ import annotations

import pytest

from xbuild.cli import ci_marks
from xbuild.cli.ci_marks import Outcome
from xbuild.record import replace
from xbuild.sandbox.deadline import Process
from xbuild.sandbox.usage import Usage

USED = Usage(1.26, 0.5, 3 << 20, "process", 5 << 20, 1 << 20)


def outcome(**changes: object) -> Outcome:
    plain = Outcome("make all", "/srv/pi", 2, 3.04, USED, b"one\ntwo\n")
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("choice", "environment", "service"),
    [
        ("auto", {"GITHUB_ACTIONS": "true"}, "github"),
        ("auto", {"GITLAB_CI": "true"}, "gitlab"),
        ("auto", {"GITHUB_ACTIONS": "false"}, "plain"),
        ("auto", {}, "plain"),
        ("gitlab", {"GITHUB_ACTIONS": "true"}, "gitlab"),
        ("github", {}, "github"),
        ("plain", {"GITHUB_ACTIONS": "true"}, "plain"),
    ],
)
def test_service(choice: str, environment: dict[str, str], service: str) -> None:
    assert ci_marks.service_of(choice, environment) == service


def test_github_groups() -> None:
    opened = ci_marks.opening("github", "a 50%\n::x", 7, "secret")
    assert opened == "::group::a 50%25\\n::x\n::stop-commands::secret\n"
    closed = "::secret::\n::endgroup::\n"
    assert ci_marks.closing("github", 7, b"whole\n", "secret") == closed
    assert ci_marks.closing("github", 7, b"cut off", "secret") == f"\n{closed}"


def test_gitlab_sections() -> None:
    opened = ci_marks.opening("gitlab", "run", 7, "t")
    assert opened == "\033[0Ksection_start:7:xbuild_run_t\r\033[0Krun\n"
    closed = ci_marks.closing("gitlab", 9, b"x\n", "t")
    assert closed == "\033[0Ksection_end:9:xbuild_run_t\r\033[0K\n"


def test_plain_has_none() -> None:
    assert ci_marks.opening("plain", "run", 7, "") + ci_marks.closing("plain", 9, b"x", "") == ""


def test_annotation_is_one_command() -> None:
    text = ci_marks.annotation(outcome(last=b"a: 1%\r\n\xff\x1b[31mred\n::error::no\n"))
    assert text == (
        "::error title=xbuild%3A ended with status 2::make all: ended with status 2"
        "%0Aa: 1%25%0A\ufffd\\x1b[31mred%0A::error::no\n"
    )


def test_annotation_of_a_hang() -> None:
    hung = outcome(cause="Time is up: a, b", hint="one\ntwo", processes=(Process(9, ("x",), "S"),))
    text = ci_marks.annotation(hung)
    assert text.startswith("::error title=xbuild%3A Time is up%3A a%2C b::make all: Time is up")
    assert "%0Ahint: one%0Ahint: two%0Athere was: 9 S x%0A" in text


def test_remarks_are_in_both() -> None:
    known = outcome(remarks=("a known limit: no ptrace", "the memory\nlimit"))
    assert "ended with status 2%0Aa known limit: no ptrace%0Athe memory%0Alimit%0Aone%0A" in (
        ci_marks.annotation(known)
    )
    assert "| note | a known limit: no ptrace |\n| note | the memory limit |" in (
        ci_marks.summary(known)
    )


def test_annotation_is_short() -> None:
    text = ci_marks.annotation(outcome(last=b"".join(b"%01000d\n" % n for n in range(1000))))
    assert len(text) < 12 * 520
    assert text.count("%0A") == 12


def test_summary() -> None:
    text = ci_marks.summary(outcome(words="a|b `c` <d>", last=b"</pre>\n"))
    assert "### ✗ <code>a&#124;b &#96;c&#96; &lt;d&gt;</code>" in text
    assert "| processor | 1.3 s user, 0.5 s system |" in text
    assert "| memory | 3.0 MiB at most (of one process) |" in text
    assert "| written | 5.0 MiB, and 1.0 MiB to disks |" in text
    assert "<pre>&lt;/pre&gt;</pre>" in text


def test_summary_of_a_success_has_no_output() -> None:
    text = ci_marks.summary(outcome(status=0))
    assert text.startswith("### ✓")
    assert "<pre>" not in text


def test_figures_without_a_container() -> None:
    assert ci_marks.figures(outcome(usage=None)) == "time 3.0 s"
