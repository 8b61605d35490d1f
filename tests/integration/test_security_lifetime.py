"""A container ends with xbuild, at whatever moment that is killed.

strace slows one system call down, and ends itself with the last process that it follows.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.capability import require
from tests.patience import PATIENCE_S, wait_for
from tests.runs import Kind, Runner

DELAY_US = 400_000
SAY_PID_THEN = ("sh", "-c", 'echo $$ >"$0"; exec "$@"')

Trace = Callable[[Runner, str], "subprocess.Popen[bytes]"]


@pytest.fixture
def trace(tmp_path: os.PathLike[str]) -> Iterator[Trace]:
    """Start a run in which one kind of system call takes a while after it is done."""
    require("strace", shutil.which("strace") is not None, "strace is not installed")
    started: list[subprocess.Popen[bytes]] = []

    def start(runner: Runner, call: str) -> subprocess.Popen[bytes]:
        slow = ["-e", f"trace={call}", "-e", f"inject={call}:delay_exit={DELAY_US}"]
        strace = ["strace", "-f", "-qq", "-o", log_of(tmp_path), *slow]
        argv = runner.user.argv(runner.argv(runner.tree("arm64"), "--", "sleep", "100"))
        environment = runner.user.environment()
        process = subprocess.Popen(
            [*strace, *SAY_PID_THEN, pid_file_of(tmp_path), *argv],
            stdin=subprocess.DEVNULL,
            cwd=runner.user.home,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def log_of(directory: os.PathLike[str]) -> str:
    return os.path.join(os.fspath(directory), "log")


def pid_file_of(directory: os.PathLike[str]) -> str:
    return os.path.join(os.fspath(directory), "pid")


def launcher_of(directory: os.PathLike[str]) -> int:
    """Return the process id that the launcher said before it became xbuild."""
    path = pid_file_of(directory)
    wait_for(lambda: os.path.exists(path) and os.path.getsize(path))
    with open(path) as file:
        return int(file.read())


def wait_for_child(log: str, launcher: int, call: str) -> None:
    """Wait until a process below the launcher makes the call."""

    def has_called() -> bool:
        if not os.path.exists(log):
            return False
        with open(log) as file:
            return any(f" {call}(" in line and int(line.split()[0]) != launcher for line in file)

    wait_for(has_called)


@pytest.mark.parametrize("kind", ["root", "range"])
@pytest.mark.parametrize(
    "call",
    [
        "setresuid",  # clears PR_SET_PDEATHSIG, as every change of credentials does
        "setresgid",
        "unshare",
        "pivot_root",
        "openat2",
        "sethostname",
    ],
)
def test_nothing_outlives_a_killed_launcher(
    runner_of: Callable[[Kind], Runner],
    trace: Trace,
    tmp_path: os.PathLike[str],
    kind: Kind,
    call: str,
) -> None:
    require("root", os.geteuid() == 0, "only root may follow set-user-ID programs")
    strace = trace(runner_of(kind), call)
    launcher = launcher_of(tmp_path)
    wait_for_child(log_of(tmp_path), launcher, call)
    os.kill(launcher, signal.SIGKILL)
    strace.wait(PATIENCE_S)


def test_signal_is_not_lost_while_starting(runner: Runner) -> None:
    """A process 1 has no default actions: what comes before its handlers must wait for them."""
    argv = runner.argv(runner.tree("arm64"), "--", "sleep", "100")
    for delay_ms in range(0, 100, 10):
        command = runner.user.argv(argv)
        environment = runner.user.environment()
        with subprocess.Popen(
            command, cwd=runner.user.home, env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            time.sleep(0.05 + delay_ms / 1000)
            process.terminate()
            _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode in (143, -signal.SIGTERM)
        assert "Traceback" not in errors


def test_ignored_sigchld_does_not_confuse(root: Runner, tmp_path: Path) -> None:
    """A parent that ignores SIGCHLD bequeaths that: the kernel then reaps children unasked."""
    ignore = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
    ignore += " os.execv(sys.argv[1], sys.argv[1:])"
    argv = root.argv(root.tree("arm64"), "--", "sh", "-c", "true; exit 5")
    done = root.user.run(["/usr/bin/python3", "-I", "-c", ignore, *argv])
    assert (done.returncode, done.stderr) == (5, "")
    argv = [*root.xbuild, "pack", root.tree("arm64"), str(tmp_path / "tree.tar")]
    done = root.user.run(["/usr/bin/python3", "-I", "-c", ignore, *argv])
    assert done.returncode == 0, done.stderr


def test_command_has_default_signals(root: Runner) -> None:
    """However xbuild was started: an ignored SIGINT is for the shell's background jobs only."""
    ignore = "import os, signal, sys\nfor n in (1, 2, 3, 13, 15, 20, 21, 22, 25, 34):\n"
    ignore += "    signal.signal(n, signal.SIG_IGN)\nos.execv(sys.argv[1], sys.argv[1:])"
    argv = root.argv(root.tree("arm64"), "--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    done = root.user.run(["/usr/bin/python3", "-I", "-c", ignore, *argv])
    blocked, ignored = (int(line.split()[1], 16) for line in done.stdout.splitlines())
    its_own = 1 << 31  # signal 32, which qemu-user keeps to itself
    assert (blocked, ignored & ~its_own) == (0, 0)
