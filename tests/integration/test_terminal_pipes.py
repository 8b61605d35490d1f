"""A terminal on one side only: pipelines get bytes as they are, and other jobs their keys."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pexpect
import pytest

from tests.conftest import OpenTerminal
from tests.leftovers import await_program
from tests.runs import Runner
from tests.terminals import await_keys

PROMPT = "outer> "

Line = Callable[[str], "pexpect.spawn[str]"]


@pytest.fixture
def run(root: Runner) -> str:
    """The words that run a command of the arm64 tree."""
    return shlex.join(root.argv(root.tree("arm64"), "--"))


@pytest.fixture
def pipeline(root: Runner, open_terminal: OpenTerminal) -> Line:
    """Run a line of the host's shell on a terminal."""
    return lambda line: open_terminal(["/bin/sh", "-c", line], user=root.user)


@pytest.fixture
def outer(root: Runner, open_terminal: OpenTerminal) -> pexpect.spawn[str]:
    """A shell of the host's with job control."""
    environment = root.user.environment(PS1=PROMPT)
    command = ["/bin/bash", "--norc", "--noprofile", "-i"]
    session = open_terminal(command, user=root.user, env=environment)
    session.expect_exact(PROMPT)
    return session


def test_only_output_is_the_terminal(run: str, pipeline: Line) -> None:
    assert pipeline(f"printf 'a\\nb' | {run} cat").read() == "a\r\nb"


def test_only_input_is_the_terminal(run: str, pipeline: Line) -> None:
    session = pipeline(f"{run} cat </dev/tty | od -An -c")
    session.send("ab\ncd\x04e\n\x04")
    assert session.read().split() == ["ab", "cde", "a", "b", r"\n", "c", "d", "e", r"\n"]


def test_input_goes_on_after_an_end_of_file(run: str, pipeline: Line) -> None:
    session = pipeline(f"{run} sh -c 'cat; echo --; cat' </dev/tty | cat")
    session.send("one\n\x04")
    session.expect_exact("one\r\none\r\n--\r\n")
    session.send("two\n\x04")
    assert session.read() == "two\r\ntwo\r\n"


def test_only_standard_error_is_the_terminal(run: str, pipeline: Line) -> None:
    script = "test -t 2; echo out; echo err >&2"
    session = pipeline(f"{run} sh -ec {shlex.quote(script)} </dev/null | od -An -c >&2")
    assert session.read().split() == ["err", "o", "u", "t", r"\n"]


def test_what_is_no_terminal_stays_none(run: str, pipeline: Line) -> None:
    script = "test -t 0; test -t 1 && echo terminal >&2; test -t 2; exit 0"
    session = pipeline(f"{run} sh -c {shlex.quote(script)} </dev/tty | cat")
    assert session.read() == ""


def test_interrupt_key_ends_a_pipeline(run: str, pipeline: Line) -> None:
    session = pipeline(f"{run} sh -c 'echo on; sleep 1000' | cat; echo over")
    session.expect_exact("on\r\n")
    await_program("sleep", "1000")  # under qemu 7.2 a child misses what comes while its shell forks
    session.sendintr()
    session.expect(pexpect.EOF)


def test_suspend_key_stops_a_pipeline_and_what_is_inside(
    run: str, outer: pexpect.spawn[str]
) -> None:
    outer.sendline(f"{run} sh -c 'while :; do echo tick; sleep 0.1; done' </dev/null | cat")
    outer.expect_exact("tick\r\ntick\r\n")
    outer.sendcontrol("z")
    outer.expect_exact("Stopped")
    outer.expect_exact(PROMPT)
    assert outer.expect_exact(["tick", pexpect.TIMEOUT], timeout=0.6) == 1
    outer.sendline("fg")
    outer.expect_exact("cat\r\n")
    outer.expect_exact("tick\r\ntick\r\n")
    outer.sendintr()
    outer.expect_exact(PROMPT)


def test_background_run_leaves_the_keys_alone(run: str, outer: pexpect.spawn[str]) -> None:
    outer.sendline(f"{run} sh -c 'sleep 0.5; echo done' >answer & cat")
    outer.expect(r"\[1\] \d+\r\n")
    for word in ("several", "keys", "typed"):
        outer.sendline(word)
        outer.expect_exact(f"{word}\r\n{word}\r\n")
    outer.sendeof()
    outer.expect_exact(PROMPT)
    outer.sendline("wait; jobs; cat answer")
    outer.expect_exact("answer\r\n")
    outer.expect_exact("done\r\n" + PROMPT)
    assert "Stopped" not in (outer.before or "")


def test_background_run_takes_the_terminal_when_it_comes_to_the_fore(
    run: str, outer: pexpect.spawn[str]
) -> None:
    outer.sendline(f"{run} sh -c 'cat; stty size' &")
    outer.expect_exact(PROMPT)
    outer.sendline("fg")
    await_keys(outer)
    outer.sendline("hello")
    outer.expect_exact("hello\r\nhello\r\n")
    outer.sendeof()
    outer.expect_exact("24 80\r\n")
    outer.expect_exact(PROMPT)


def test_hang_up_is_ignored_where_nohup_says_so(run: str, outer: pexpect.spawn[str]) -> None:
    outer.sendline(
        f"nohup {run} sh -c 'sleep 0.7; echo survived' </dev/null >answer 2>&1 & sleep 0.5"
    )
    outer.expect_exact("0.5\r\n")
    outer.expect_exact(PROMPT)
    outer.sendline("kill -HUP $!; wait; cat answer")
    outer.expect_exact("survived\r\n")
