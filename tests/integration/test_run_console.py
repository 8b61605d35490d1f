"""``--console pipe``: no terminal inside, and output that passes through xbuild unchanged."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess

import pytest

from tests.conftest import OpenTerminal
from tests.patience import PATIENCE_S
from tests.runs import Runner
from tests.terminals import status_of

PIPED = ("--console", "pipe")
MANY = 200_000


def piped(runner: Runner, script: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    tree = runner.tree("arm64")
    return runner.run_bytes(*PIPED, tree, "--", "sh", "-c", script, **options)


def test_streams_stay_apart_and_the_status_is_the_commands(runner: Runner) -> None:
    done = piped(runner, "echo out; echo err >&2; printf end; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\nend")
    assert [line for line in done.stderr.splitlines() if not line.startswith(b"note: ")] == [b"err"]


def test_every_byte_comes_through(root: Runner) -> None:
    done = piped(root, r"printf '\000\001\377\376\n\r\n\033[31m'; printf '\200' >&2")
    assert (done.stdout, done.stderr) == (b"\0\1\xff\xfe\n\r\n\x1b[31m", b"\x80")


def test_order_is_kept_where_both_streams_are_one_file(root: Runner) -> None:
    script = "i=0; while [ $i -lt 300 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done"
    done = piped(
        root, script, capture_output=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.stdout.split() == [f"{c}{i}".encode() for i in range(300) for c in "oe"]


def test_many_lines_and_a_huge_one(root: Runner) -> None:
    done = piped(root, f"seq {MANY}; head -c 3000000 /dev/zero | tr '\\0' x")
    lines = done.stdout.split(b"\n")
    assert lines[:MANY] == [b"%d" % number for number in range(1, MANY + 1)]
    assert lines[MANY:] == [b"x" * 3_000_000]


def test_nothing_inside_is_a_terminal(root: Runner, open_terminal: OpenTerminal) -> None:
    script = "for fd in 0 1 2; do [ -t $fd ] && echo $fd; done; cat; echo end $TERM; exit 3"
    command = root.argv(*PIPED, root.tree("arm64"), "--", "sh", "-c", script)
    session = open_terminal(command, user=root.user)
    assert session.read() == "end dumb\r\n"
    assert status_of(session) == 3


def test_input_that_is_no_terminal_is_the_commands(root: Runner) -> None:
    assert piped(root, "cat", input=b"a\0b").stdout == b"a\0b"


def test_a_reader_who_leaves_ends_the_command_as_without(runner: Runner) -> None:
    words = (*PIPED, runner.tree("arm64"), "--", "sh", "-c", "yes; echo $? >&2")
    done = runner.user.run(["bash", "-c", f"{shlex.join(runner.argv(*words))} | head -1"])
    assert (done.stdout, done.stderr.splitlines()[-1:]) == ("y\n", [f"{128 + signal.SIGPIPE}"])


def test_a_slow_reader_holds_the_command_back_and_loses_nothing(root: Runner) -> None:
    script = f"seq {MANY}; echo written >&2"
    words = (*PIPED, root.tree("arm64"), "--", "sh", "-c", script)
    with root.spawn(*words, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert not select.select([process.stderr], (), (), 2)[0]
        assert process.stdout.read().split() == [str(number) for number in range(1, MANY + 1)]
        assert process.stderr.read() == "written\n"


def test_one_stream_does_not_wait_for_the_other(root: Runner) -> None:
    script = "yes | head -c 2000000 & echo here >&2; wait"
    words = (*PIPED, root.tree("arm64"), "--", "sh", "-c", script)
    with root.spawn(*words, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == "here\n"
        assert len(process.stdout.read()) == 2_000_000


def test_a_reader_who_never_reads_does_not_keep_a_run_that_is_out_of_time(root: Runner) -> None:
    words = (*PIPED, "--timeout", "1", "--kill-timeout", "1", root.tree("arm64"), "--", "yes")
    with root.spawn(*words) as process:
        assert process.wait(PATIENCE_S) == 124


def test_a_full_disk_is_told(root: Runner) -> None:
    line = shlex.join(root.argv(*PIPED, root.tree("arm64"), "--", "yes"))
    done = root.user.run(["sh", "-c", f"{line} >/dev/full"])
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == "note: standard output could not be written to: No space left on device\n"


def test_what_the_background_wrote_before_the_end_is_there(root: Runner) -> None:
    done = piped(root, "(while :; do echo x; sleep 0.01; done) & sleep 0.5; echo end")
    assert b"end\n" in done.stdout
    assert b"x\n" in done.stdout


@pytest.mark.parametrize("fds", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_descriptors(root: Runner, fds: str) -> None:
    line = shlex.join(root.argv(*PIPED, root.tree("arm64"), "--", "sh", "-c", "exit 4"))
    assert root.user.run(["sh", "-c", f"{line} {fds}"]).returncode == 4


def test_init_and_time_limits_work_with_pipes(root: Runner) -> None:
    words = (*PIPED, "--as-pid1", "--timeout", "4", root.tree("arm64"), "sh", "-c")
    done = root.run(*words, "echo $$; trap 'exit 1' TERM; while :; do sleep 0.1; done")
    assert (done.returncode, done.stdout) == (124, "1\n")


def test_what_joins_has_its_own_descriptors(root: Runner) -> None:
    name = f"piped-{os.getpid()}"
    words = (*PIPED, "--name", name, root.tree("arm64"), "sh", "-c", "echo up; exec sleep 1000")
    with root.spawn(*words) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert root.command("exec", name, "cat", input="mine").stdout == "mine"
        process.terminate()


def test_dry_run_says_so(root: Runner) -> None:
    assert "with output and errors passed on by xbuild" in root.output(
        *PIPED, "--dry-run", root.tree("arm64")
    )


def test_a_command_that_is_not_there(root: Runner) -> None:
    done = root.run(*PIPED, root.tree("arm64"), "nothing-of-the-kind")
    assert done.returncode == 127
    assert "There is no nothing-of-the-kind" in done.stderr
