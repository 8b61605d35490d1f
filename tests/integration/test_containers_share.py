"""Several containers on one tree, and one that has it alone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.patience import PATIENCE_S
from tests.runs import Runner

FIFTY = 50
READY = "echo ready; exec sleep 120"

Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start a run that says ``ready``; it is killed at the end."""
    with contextlib.ExitStack() as stack:

        def spawn(runner: Runner, *words: str) -> subprocess.Popen[str]:
            process = stack.enter_context(runner.spawn(*words, "sh", "-c", READY))
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield spawn


def test_fifty_at_once_on_one_tree(root: Runner, fresh_tree: Callable[..., str]) -> None:
    tree = fresh_tree("arm64")
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(root.spawn(tree, "sh", "-c", READY)) for _ in range(FIFTY)]
        for process in processes:
            stack.callback(process.kill)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        names = _names_of(root, tree)
        assert len(names) == len(set(names)) == FIFTY
        assert root.command("exec", names[-1], "true").returncode == 0
        stopped = root.command("stop", *names)
        assert stopped.returncode == 0, stopped.stderr
        assert {process.wait(PATIENCE_S) for process in processes} == {128 + signal.SIGTERM}
    assert _names_of(root, tree) == []


def _names_of(runner: Runner, tree: str) -> list[str]:
    listed = json.loads(runner.command("ps", "--json").stdout)["containers"]
    return [each["name"] for each in listed if each["tree"] == tree]


def test_fifty_ephemeral_ones_leave_the_tree_alone(
    ranged: Runner, fresh_tree: Callable[..., str]
) -> None:
    tree = fresh_tree("arm64", ranged.user)
    script = "echo $$ >/root/mine && cat /root/mine >/dev/null && exit 7"
    argv = ranged.user.argv(ranged.argv("--ephemeral", tree, "sh", "-c", script))
    settings = {"env": ranged.user.environment(), "cwd": ranged.user.home}
    processes = [subprocess.Popen(argv, **settings) for _ in range(FIFTY)]  # type: ignore[call-overload]  # as in runs
    assert {process.wait(PATIENCE_S) for process in processes} == {7}
    assert not os.path.exists(f"{tree}/root/mine")


def test_exclusive_is_refused_while_others_use_the_tree(runner: Runner, begin: Begin) -> None:
    process = begin(runner, runner.tree("arm64"))
    for more in ((), ("--ephemeral",)):
        done = runner.run("--exclusive", *more, runner.tree("arm64"), "true")
        assert done.returncode == 125
        assert "cannot be had alone" in done.stderr
        assert f"(process {process.pid})" in done.stderr
    process.terminate()
    process.wait(PATIENCE_S)
    assert runner.run("--exclusive", runner.tree("arm64"), "true").returncode == 0


def test_others_are_refused_while_one_has_the_tree(runner: Runner, begin: Begin) -> None:
    name = f"alone-{os.getpid()}-{time.monotonic_ns()}"
    process = begin(runner, "--exclusive", "--name", name, runner.tree("arm64"))
    for options in ((), ("--exclusive",)):
        done = runner.run(*options, runner.tree("arm64"), "true")
        assert done.returncode == 125
        assert f"container {name} (process {process.pid})" in done.stderr
    assert runner.run("--ephemeral", runner.tree("arm64"), "true").returncode == 0


def test_the_lock_goes_with_a_killed_one(root: Runner, begin: Begin) -> None:
    process = begin(root, "--exclusive", root.tree("arm64"))
    process.kill()
    process.wait(PATIENCE_S)
    assert root.run(root.tree("arm64"), "true").returncode == 0


def test_a_holder_that_is_no_container_is_named(root: Runner) -> None:
    tree = root.tree("arm64")
    fd = os.open(tree, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        done = root.run(tree, "true")
    finally:
        os.close(fd)
    assert (done.returncode, f"process {os.getpid()} (" in done.stderr) == (125, True)


def test_a_tree_that_cannot_be_opened_is_shared_without_a_lock(
    ranged: Runner, fresh_tree: Callable[..., str]
) -> None:
    tree = fresh_tree("arm64", ranged.user)
    os.chmod(tree, 0o311)
    assert ranged.run(tree, "/bin/true").returncode == 0
    done = ranged.run("--exclusive", tree, "/bin/true")
    assert (done.returncode, f"Cannot lock {tree}" in done.stderr) == (125, True)
