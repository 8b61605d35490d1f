"""Whoever dies, however: nothing of the container is left, and signals get where they are meant."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.leftovers import await_program, descendants, left_since
from tests.patience import PATIENCE_S
from tests.runs import Kind, Runner

DAEMONS = """
    trap '' TERM HUP INT
    (trap '' TERM HUP; while :; do sleep 9; done) &
    setsid sh -c 'trap "" TERM HUP; sleep 99' &
    (setsid sh -c 'sleep 98' &)
    nohup sleep 97 >/dev/null 2>&1 &
    echo ready; sleep 96
    """

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a run and wait until its command says ``ready``; it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def spawn(runner: Runner, script: str, *options: str) -> subprocess.Popen[str]:
        tree = runner.tree("arm64")
        process = runner.spawn(*options, tree, "sh", "-c", script)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield spawn
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def name_of(pid: int) -> str:
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def chain_of(process: subprocess.Popen[str], kind: Kind) -> dict[str, int]:
    """Return the pids of a run's processes: launcher, supervisor (for users), init, command."""
    names = ["init", "command"] if kind == "root" else ["supervisor", "init", "command"]
    chain, pid = {"launcher": process.pid}, process.pid
    for name in names:
        pid = chain[name] = children_of(pid)[0]
    return chain


VICTIMS = [
    ("root", "launcher"),
    ("root", "init"),
    ("root", "command"),
    ("range", "launcher"),
    ("range", "supervisor"),
    ("range", "init"),
    ("range", "command"),
    ("plain", "launcher"),
    ("plain", "supervisor"),
    ("plain", "command"),
]


@pytest.mark.parametrize(("kind", "victim"), VICTIMS)
def test_sigkill_leaves_nothing(
    runner_of: Callable[[Kind], Runner], start: Start, kind: Kind, victim: str
) -> None:
    runner, before = runner_of(kind), descendants()
    process = start(runner, DAEMONS, "--ephemeral", "--tmpfs", "/mnt")
    os.kill(chain_of(process, kind)[victim], signal.SIGKILL)
    process.wait(PATIENCE_S)
    assert left_since(before) == {}
    assert process.returncode == (-9 if victim == "launcher" else 137)


def test_end_of_the_command_ends_its_daemons(runner: Runner) -> None:
    before = descendants()
    script = DAEMONS.replace("sleep 96", "exit 3")
    done = runner.run(runner.tree("arm64"), "sh", "-c", script, stderr=subprocess.DEVNULL,
                      stdout=subprocess.PIPE, capture_output=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "ready\n")
    assert left_since(before) == {}


@pytest.mark.parametrize("delay_ms", [5, 15, 25, 35, 45, 55, 65, 75, 90, 110, 140])
def test_sigkill_during_the_start(runner: Runner, delay_ms: int) -> None:
    before = descendants()
    process = runner.spawn(runner.tree("arm64"), "sleep", "60")
    time.sleep(delay_ms / 1000)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert left_since(before) == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_sigterm_during_the_start(root: Runner, number: signal.Signals) -> None:
    """Early or late, the run ends by it, and says so by its status."""
    before = descendants()
    for delay_ms in (1, 20, 40, 60, 100):
        process = root.spawn(root.tree("arm64"), "sleep", "60", stderr=subprocess.DEVNULL)
        # While Python itself starts it makes an exception of that, and may lose it.
        while number == signal.SIGINT and not descendants().keys() - before.keys() - {process.pid}:
            time.sleep(0.001)
        time.sleep(delay_ms / 1000)
        process.send_signal(number)
        assert process.wait(PATIENCE_S) in (128 + number, -number), delay_ms
        assert process.stdout is not None
        process.stdout.close()
    assert left_since(before) == {}


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_reach_the_command(runner: Runner, start: Start, name: str) -> None:
    script = f"trap 'echo caught; exit 5' {name}; echo ready; while :; do sleep 0.05; done"
    process = start(runner, script)
    process.send_signal(signal.Signals[f"SIG{name}"])
    assert process.wait(PATIENCE_S) == 5
    assert process.stdout is not None
    assert process.stdout.read() == "caught\n"


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1"])
def test_deadly_signals_end_the_run(runner: Runner, start: Start, name: str) -> None:
    process = start(runner, "echo ready; exec sleep 60")
    process.send_signal(signal.Signals[f"SIG{name}"])
    assert process.wait(PATIENCE_S) == 128 + signal.Signals[f"SIG{name}"]


def test_signals_as_another_user(root: Runner, start: Start) -> None:
    process = start(root, "echo ready; exec sleep 60", "--user", "nobody")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_interrupt_reaches_the_whole_job(root: Runner, start: Start) -> None:
    """As the key ^C would: a shell waits for its foreground child, which has to die first."""
    script = "trap 'echo shell; exit 6' INT; echo ready; sleep 1000; echo not reached"
    process = start(root, script)
    await_program("sleep", "1000")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 6
    assert process.stdout is not None
    assert process.stdout.read() == "shell\n"


def test_ignored_signals_stay_ignored(runner: Runner) -> None:
    """As nohup(1) promises, for xbuild and for its command."""
    words = runner.argv(runner.tree("arm64"), "sh", "-c", "echo ready; sleep 0.3; exit 8")
    script = "trap '' HUP; exec \"$@\""
    with subprocess.Popen(
        runner.user.argv(["sh", "-c", script, "sh", *words]),
        env=runner.user.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(PATIENCE_S) == 8


def test_stop_and_continue(root: Runner, start: Start) -> None:
    process = start(root, "echo ready; sleep 0.2; exit 4")
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    process.send_signal(signal.SIGCONT)
    assert process.wait(PATIENCE_S) == 4


def test_orphans_are_reaped(runner: Runner) -> None:
    """Process 1 collects what others leave: no zombie stays."""
    script = """
        for i in 1 2 3 4 5; do (sh -c : & exec sleep 0.02) & done; wait
        while grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do sleep 0.02; done; echo none
        """
    assert runner.shell("arm64", script) == "none\n"


def test_closing_the_pipe_ends_a_writer(runner: Runner) -> None:
    process = runner.spawn(runner.tree("arm64"), "yes")
    assert process.stdout is not None
    assert process.stdout.readline() == "y\n"
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 128 + signal.SIGPIPE


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors(runner: Runner, closed: str) -> None:
    """Nothing of ours takes their place; the command's status counts."""
    tree, file = runner.tree("arm64"), f"{runner.user.home}/descriptors"
    script = f"{' '.join(runner.argv('--bind', runner.user.home + ':/mnt', tree))} "
    script += f"sh -c 'ls -l /proc/$$/fd >/mnt/descriptors; exit 9' {closed}"
    done = runner.user.run(["sh", "-c", script])
    with open(file) as stream:
        shown = stream.read()
    os.unlink(file)
    assert done.returncode == 9, done.stderr
    assert not [line for line in shown.splitlines() if "binfmt" in line or "mount" in line]
    assert "Traceback" not in done.stderr


def test_full_standard_output(runner: Runner) -> None:
    tree = runner.tree("arm64")
    script = f"{' '.join(runner.argv(tree))} sh -c 'echo x; echo $? >&2' >/dev/full"
    done = runner.user.run(["sh", "-c", script])
    assert done.stderr.splitlines()[-1] == "1"
    script = f"{' '.join(runner.argv('--dry-run', tree))} >/dev/full"
    done = runner.user.run(["sh", "-c", script])
    assert (done.returncode, "cannot write to standard output" in done.stderr) == (125, True)


def test_descriptors_of_the_caller_do_not_leak_in(runner: Runner) -> None:
    reading, writing = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, reading)
        stack.callback(os.close, writing)
        shown = runner.output(
            runner.tree("arm64"), "sh", "-c", "ls /proc/$$/fd", pass_fds=(reading, writing)
        )
    assert set(shown.split()) <= {"0", "1", "2", "10", "255"}
