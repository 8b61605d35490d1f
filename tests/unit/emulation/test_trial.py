"""Trials are bounded in time and output, and leave nothing open or running."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.patience import PATIENCE_S
from xbuild.binary.arch import host_arch
from xbuild.emulation.trial import (
    OUTPUT_LIMIT,
    PROGRAM_PATH,
    TRIAL_STATUS,
    TRIAL_TEXT,
    Outcome,
    run_trial,
    try_kernel,
)


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_the_hosts_own_programs_run() -> None:
    outcome = try_kernel(host_arch())
    assert outcome.is_as_expected
    assert (outcome.status, outcome.output) == (TRIAL_STATUS, TRIAL_TEXT)


def test_output_status_and_first_complaint_are_told() -> None:
    outcome = run_trial(("/bin/sh", "-c", "echo out; echo one >&2; echo two >&2; exit 3"))
    assert (outcome.status, outcome.output, outcome.complaint) == (3, b"out\n", "one")
    assert outcome.describe() == "it exited with status 3: one"


def test_a_signal_is_told() -> None:
    assert "signal 9" in run_trial(("/bin/sh", "-c", "kill -9 $$")).describe()


def test_one_that_does_not_end_is_killed() -> None:
    outcome = run_trial(("/bin/sleep", "60"), timeout_s=0.1)
    assert outcome.status is None


def test_one_that_never_stops_writing_is_killed() -> None:
    outcome = run_trial(("/bin/sh", "-c", "while :; do echo y; done"), timeout_s=0.3)
    assert outcome.status is None
    assert len(outcome.output) <= OUTPUT_LIMIT


def test_one_that_leaves_a_child_behind_is_not_waited_for() -> None:
    script = "sleep 1000 & echo $!"
    outcome = run_trial(("/bin/sh", "-c", script), timeout_s=PATIENCE_S)
    os.kill(int(outcome.output), signal.SIGKILL)


def test_terminal_escapes_are_not_passed_on() -> None:
    outcome = run_trial(("/bin/sh", "-c", r"printf '\033[31mred\033[m' >&2"))
    assert outcome.complaint == "?[31mred?[m"


def test_a_program_that_is_not_there_is_an_oserror() -> None:
    with pytest.raises(FileNotFoundError):
        run_trial(("/nonexistent",))


@pytest.mark.parametrize("argv", [("/bin/true",), ("/nonexistent",), ("/bin/sleep", "9")])
def test_nothing_stays_open(argv: tuple[str, ...]) -> None:
    before = open_descriptors()
    with contextlib.suppress(FileNotFoundError):
        run_trial(argv, program=b"x", timeout_s=0.05)
    assert open_descriptors() == before


def test_the_environment_of_the_caller_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_STRACE", "1")
    assert b"QEMU" not in run_trial(("/usr/bin/env",)).output


def test_the_program_is_found_at_its_path() -> None:
    assert run_trial(("/bin/cat", PROGRAM_PATH), program=b"content").output == b"content"


def test_words_before_the_programs_own_do_not_hide_it() -> None:
    """As qemu 10 for ppc64le has them; what comes after, or on the same line, is another's."""
    for output, is_it in (
        (b"Could not resolve /proc/self/fd/3\n" + TRIAL_TEXT, True),
        (TRIAL_TEXT + b"more\n", False),
        (b"not " + TRIAL_TEXT, False),
    ):
        assert Outcome(TRIAL_STATUS, output, "").is_as_expected is is_it
