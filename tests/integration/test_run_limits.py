"""Limits on memory, processors, processes and disks, kept by the kernel's control groups."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import leftovers
from tests.capability import require
from tests.groups import delegated_group
from tests.installation import CHECKOUT
from tests.patience import WORK_S, wait_for
from tests.runs import Runner, notes
from xbuild.plan.limiting import read_hierarchies

_BOMB = "bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 2; wait; echo survived"


@pytest.fixture(autouse=True)
def no_groups_left() -> Iterator[None]:
    """Whatever a test does, its control groups are gone soon after."""
    yield
    wait_for(lambda: groups() == [])


def groups() -> list[str]:
    """Return those of containers that began since this module was loaded, and not by others."""
    return [g for g in _all_groups() if g not in _OF_OTHERS and not _is_of_another_session(g)]


def _is_of_another_session(group: str) -> bool:
    """Tell whether it belongs to a launcher that lives, and is no descendant of this session's."""
    launcher = os.path.basename(group).rpartition("-")[2]
    if not launcher.isdigit():
        return False
    return os.path.exists(f"/proc/{launcher}") and int(launcher) not in leftovers.descendants()


def groups_of(run: subprocess.Popen[str]) -> list[str]:
    return [group for group in _all_groups() if group.endswith(f"/xbuild-{run.pid}")]


def _all_groups() -> list[str]:
    return glob.glob("/sys/fs/cgroup/**/xbuild-*", recursive=True)


_OF_OTHERS = frozenset(_all_groups())


@pytest.fixture
def limited(root: Runner) -> Runner:
    """Root, on a machine with the controllers."""
    found = read_hierarchies()
    names = {name for name, _ in found.places} | set(found.offered)
    require("control groups", {"memory", "cpu", "pids", "io"} <= names, f"there are only {names}")
    return root


def test_memory(limited: Runner) -> None:
    """The one that takes too much is killed, and why is said."""
    script = "dd if=/dev/zero of=/tmp/x bs=1M count=300"
    done = limited.run("--memory", "64M", limited.tree("arm64"), "sh", "-c", script)
    assert done.returncode == 137
    assert any("the memory limit was reached" in note for note in notes(done))
    done = limited.run("--memory", "1G", limited.tree("arm64"), "sh", "-c", script)
    assert (done.returncode, notes(done)) == (0, [])


def test_fork_bomb(limited: Runner) -> None:
    """It runs into the limit, and ends with its container."""
    done = limited.run("--pids", "60", limited.tree("arm64"), "sh", "-c", _BOMB, timeout_s=WORK_S)
    assert any("the limit on processes was reached" in note for note in notes(done))


def test_processes_that_fit(limited: Runner) -> None:
    done = limited.run("--pids", "40", limited.tree("arm64"), "sh", "-c", "true | cat; echo ok")
    assert (done.returncode, done.stdout, notes(done)) == (0, "ok\n", [])


def test_processors_and_disks(limited: Runner) -> None:
    """What is written is what was asked for: the file is read while the container lives."""
    words = ("--cpus", "0.5", "--io-weight", "300", limited.tree("arm64"))
    with limited.spawn(*words, "sh", "-c", "echo ready; read x", stdin=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        paths = [path for group in groups_of(run) for path in limits(group)]
        said = {os.path.basename(path): text(path) for path in paths}
        run.communicate("\n")
    assert said.get("cpu.max", said.get("cpu.cfs_quota_us", "")).split()[:1] == ["50000"]
    assert said.get("io.weight", said.get("blkio.bfq.weight", "")).split()[-1:] == ["300"]


def limits(group: str) -> list[str]:
    names = ("cpu.max", "cpu.cfs_quota_us", "io.weight", "blkio.bfq.weight")
    return [f"{group}/{name}" for name in names if os.path.exists(f"{group}/{name}")]


def text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def test_processor_time_is_held_back(limited: Runner) -> None:
    """The kernel counts the periods in which it let nobody run."""
    script = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; echo ready; read x"
    words = ("--cpus", "0.1", limited.tree("arm64"), "sh", "-c", script)
    with limited.spawn(*words, stdin=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        (path,) = [f"{group}/cpu.stat" for group in groups_of(run)]
        counts = dict(line.split() for line in text(path).splitlines())
        run.communicate("\n")
    assert int(counts["nr_throttled"]) > 0


@pytest.mark.parametrize("victim", ["launcher", "container"])
def test_groups_go_when_it_is_killed(limited: Runner, victim: str) -> None:
    words = ("--memory", "256M", "--pids", "99", limited.tree("arm64"), "sh", "-c")
    with limited.spawn(*words, "echo ready; sleep 1000") as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        assert len(groups_of(run)) == 2
        pid = run.pid
        if victim == "container":
            (first,) = {
                int(line)
                for group in groups_of(run)
                for line in text(f"{group}/cgroup.procs").split()[:1]
            }
            pid = first
        os.kill(pid, signal.SIGKILL)


def test_user_without_a_group_of_ones_own_is_told(ranged: Runner) -> None:
    for option in ("--memory=64M", "--pids=9", "--cpus=1", "--io-weight=1"):
        done = ranged.run(option, ranged.tree("arm64"), "true")
        assert done.returncode == 125
        assert "Cannot limit" in done.stderr
        assert "hint: " in done.stderr


def test_user_with_a_group_of_ones_own(ranged: Runner, limited: Runner) -> None:
    """As delegated by root: in a directory that is the user's."""
    found = dict(read_hierarchies().places)
    command = ranged.user.argv(ranged.argv("--pids=60", ranged.tree("arm64"), "sh", "-c", _BOMB))
    with delegated_group(found.get("pids") or found[""], ranged.user) as begin:
        done = subprocess.run(
            [*begin, *command],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            env=ranged.user.environment(), cwd=ranged.user.home,
        )  # fmt: skip
        assert "the limit on processes was reached" in done.stderr


@pytest.mark.parametrize(
    "option",
    ["--memory=lots", "--memory=0", "--pids=0", "--pids=x", "--cpus=0", "--io-weight=10001"],
)
def test_what_is_no_limit(root: Runner, option: str) -> None:
    done = root.run(option, root.tree("arm64"), "true")
    assert done.returncode == 2
    assert done.stderr.startswith("xbuild: --")


def test_groups_that_a_guest_made_in_one_another_are_removed(limited: Runner) -> None:
    """Deeper than Python calls itself, and than a path is long."""
    top = f"{read_hierarchies().places[0][1]}/xbuild-deep"
    os.mkdir(top)
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("group", dir_fd=descriptor)
        inner = os.open("group", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    script = f"from xbuild.sandbox.cgroups import _remove_patiently as f; f(({top!r},))"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=CHECKOUT)
    assert not os.path.exists(top)
