"""Runs that are ended by the clock: status 124, and nothing left."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.conftest import OpenTerminal
from tests.leftovers import descendants, left_since
from tests.patience import PATIENCE_S
from tests.runs import Runner
from tests.terminals import status_of


def test_timeout(runner: Runner) -> None:
    before = descendants()
    done = runner.run("--timeout", "3", runner.tree("arm64"), "sh", "-c", "echo x; sleep 60")
    assert (done.returncode, done.stdout) == (124, "x\n")
    assert done.stderr.splitlines()[-1] == "xbuild: Time is up: the run has taken 3 s (--timeout)"
    assert left_since(before) == {}


def test_timeout_of_one_that_does_not_heed_sigterm(runner: Runner) -> None:
    script = "trap '' TERM; while :; do sleep 0.1; done"
    words = ("--timeout", "0.5", "--kill-timeout", "0.5", runner.tree("arm64"), "sh", "-c", script)
    assert runner.run(*words).returncode == 124


def test_timeout_lets_the_command_tidy_up(root: Runner) -> None:
    script = "trap 'echo tidy; exit 3' TERM; while :; do sleep 0.1; done"
    done = root.run("--timeout", "4", root.tree("arm64"), "sh", "-c", script)
    assert (done.returncode, done.stdout) == (124, "tidy\n")


def test_in_time_is_as_without(root: Runner) -> None:
    words = ("--timeout", "1h", "--idle-timeout", "50", root.tree("arm64"), "sh", "-c", "exit 5")
    done = root.run(*words)
    assert (done.returncode, done.stderr) == (5, "")


def test_own_status_124_is_no_timeout(root: Runner) -> None:
    done = root.run("--timeout", "1h", root.tree("arm64"), "sh", "-c", "exit 124")
    assert (done.returncode, done.stderr) == (124, "")


IDLE = {
    "asleep": "sleep 60",
    "waiting for input": "cat",
    "looking in vain": "while :; do sleep 1; done",
    "stopped": "kill -STOP $$",
}


@pytest.mark.parametrize("what", IDLE)
def test_idle_timeout(runner: Runner, what: str) -> None:
    words = ("--idle-timeout", "2", runner.tree("arm64"), "sh", "-c", IDLE[what])
    with runner.spawn(*words, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(PATIENCE_S) == 124
        assert process.stderr is not None
        said = process.stderr.read()
    lines = [line for line in said.splitlines() if not line.startswith("note: ")]
    assert lines[0] == "xbuild: Time is up: nothing has moved for 2 s (--idle-timeout)"
    assert lines[1].startswith("hint: process ")
    assert "by qemu-aarch64: sh -c " in said


def test_idle_timeout_shorter_than_a_look_at_what_hangs(root: Runner) -> None:
    """The clock ticks on while the causes of hangs are loaded."""
    done = root.run("--idle-timeout", "0.02", root.tree("arm64"), "sleep", "60")
    assert done.returncode == 124, done.stderr
    assert "xbuild: Time is up: nothing has moved for 0.02 s (--idle-timeout)" in done.stderr


BUSY = {
    "computes": "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done",
    "prints": "for i in $(seq 12); do echo $i; sleep 0.2; done",
    "writes to a file": "for i in $(seq 12); do echo $i >>/tmp/x; sleep 0.2; done",
}


@pytest.mark.parametrize("what", BUSY)
def test_what_gets_on_is_not_idle(runner: Runner, what: str) -> None:
    words = ("--idle-timeout", "2", runner.tree("arm64"), "sh", "-c", BUSY[what] + "; exit 7")
    assert runner.run(*words).returncode == 7


def test_timeout_on_a_terminal(root: Runner, open_terminal: OpenTerminal) -> None:
    words = root.argv("--timeout", "3", root.tree("arm64"), "sh", "-c", "echo up; sleep 60")
    session = open_terminal(words)
    session.expect("up")
    session.expect("Time is up")
    assert status_of(session) == 124


def test_suspended_time_is_not_idle_time(root: Runner) -> None:
    script = "for i in 1 2 3 4; do echo $i; sleep 1; done; exit 9"
    with root.spawn("--idle-timeout", "3", root.tree("arm64"), "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGTSTP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(5)
        process.send_signal(signal.SIGCONT)
        assert process.wait(PATIENCE_S) == 9


@pytest.mark.parametrize("text", ["0", "-1", "x", "1y", "", "1e9", "9" * 20])
def test_not_a_time(root: Runner, text: str) -> None:
    done = root.run(f"--timeout={text}", root.tree("arm64"), "true")
    assert (done.returncode, "Not a length of time for --timeout" in done.stderr) == (2, True)
