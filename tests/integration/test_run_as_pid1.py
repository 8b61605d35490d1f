"""A command that has the process number 1, and what qemu-user cannot do in that place."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.leftovers import descendants, left_since
from tests.patience import PATIENCE_S
from tests.runs import Kind, Runner
from xbuild.record import HostPath


def name() -> str:
    return f"test-{os.getpid()}-{time.monotonic_ns()}"


def test_command_is_process_one(runner: Runner) -> None:
    script = "echo $$; cat /proc/1/comm; exit 4"
    done = runner.run("--as-pid1", runner.tree("arm64"), "sh", "-c", script)
    assert (done.returncode, done.stdout) == (4, "1\nsh\n"), done.stderr


def test_nothing_else_is_seen_inside(runner: Runner) -> None:
    script = """
        echo /proc/[0-9]*; grep -c ' /proc/sys .*ro,' /proc/mounts; echo 1 >/proc/sys/kernel/panic
        """
    done = runner.run("--as-pid1", runner.tree("arm64"), "sh", "-c", script)
    assert done.stdout == "/proc/1\n1\n", done.stderr
    assert "ead-only" in done.stderr


@pytest.mark.parametrize(("applet", "status"), [("reboot", 129), ("poweroff", 130), ("halt", 130)])
def test_reboot_ends_it(
    runner: Runner, busybox_tree: Callable[..., HostPath], applet: str, status: int
) -> None:
    """To be started again, it dies by SIGHUP, to be off by SIGINT (pid_namespaces(7))."""
    tree = busybox_tree("armhf", runner.user)
    done = runner.run("--as-pid1", tree, "sh", "-c", f"busybox {applet} -f; sleep 9; exit 5")
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_deadly_signals_do_not_hang_it(runner: Runner, number: signal.Signals) -> None:
    """The kernel would drop them, and qemu wait for ever to die of them."""
    script = f"kill -{number} $$; sleep 50"
    done = runner.run("--as-pid1", runner.tree("arm64"), "sh", "-c", script)
    assert done.returncode == 128 + number


def test_signals_reach_process_one(runner: Runner) -> None:
    script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    with runner.spawn("--as-pid1", runner.tree("arm64"), "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(PATIENCE_S) == 5
        assert process.stdout.read() == "caught\n"


@pytest.mark.parametrize("kind", ["root", "range"])
def test_sigkill_of_xbuild_leaves_nothing(runner_of: Callable[[Kind], Runner], kind: Kind) -> None:
    runner, before = runner_of(kind), descendants()
    script = "trap '' TERM; sleep 90 & echo ready; sleep 91; sleep 92"
    with runner.spawn("--as-pid1", runner.tree("arm64"), "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert left_since(before) == {}


def test_commands_join(runner: Runner) -> None:
    mine = name()
    words = ("--as-pid1", "--name", mine, runner.tree("arm64"), "sh", "-c", "echo ready; sleep 60")
    with runner.spawn(*words) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        done = runner.command("exec", mine, "sh", "-c", "cat /proc/1/comm; exit 6")
        assert (done.returncode, done.stdout) == (6, "sh\n"), done.stderr
        assert runner.command("stop", "--kill-timeout", "0.5", mine).returncode == 0
        assert process.wait(PATIENCE_S) in (128 + signal.SIGTERM, 128 + signal.SIGKILL)


def test_an_init_that_ends_all_others_goes_on(root: Runner) -> None:
    """As at its shutdown: the registry is there for every program, and others can still join."""
    mine = name()
    script = "trap : TERM; kill -9 -1; ls / >/dev/null && echo ready; sleep 60"
    words = ("--as-pid1", "--name", mine, root.tree("arm64"), "sh", "-c", script)
    with root.spawn(*words) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert mine in root.command("ps", "-q").stdout.split()
        assert root.command("exec", mine, "echo", "joined").stdout == "joined\n"
        assert root.command("stop", "--kill-timeout", "0.5", mine).returncode == 0
        process.wait(PATIENCE_S)


def test_idle_time_of_process_one(runner: Runner) -> None:
    idle = ("--as-pid1", "--idle-timeout", "1", "--kill-timeout", "0.5")
    assert runner.run(*idle, runner.tree("arm64"), "sleep", "60").returncode == 124
    busy = "for i in $(seq 12); do echo $i; sleep 0.2; done; exit 3"
    words = ("--as-pid1", "--idle-timeout", "2")
    assert runner.run(*words, runner.tree("arm64"), "sh", "-c", busy).returncode == 3
