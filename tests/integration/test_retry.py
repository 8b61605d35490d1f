"""``run --retry``: each rung changes what it says, and the one that holds is named."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.capability import require
from tests.interpreters import Versions
from tests.patience import WORK_S
from tests.runs import Runner, notes
from xbuild.record import HostPath

SAME, NO_ASLR, ONE_CPU = (
    "with nothing changed",
    "without address space randomization",
    "on one processor",
)
WITHOUT_ASLR = "00040000"  # ADDR_NO_RANDOMIZE, as proc(5) shows a personality


@pytest.fixture
def counted(root: Runner) -> Iterator[tuple[str, Callable[[], int]]]:
    """A directory to bind, and how many times a command that counts there was run."""
    place = f"{root.user.home}/counted"
    os.mkdir(place)

    def count() -> int:
        with open(f"{place}/runs", encoding="ascii") as file:
            return len(file.read())

    yield place, count
    subprocess.run(["rm", "-rf", place], check=True)


def retry(runner: Runner, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    words = ("--retry", *options, runner.tree("arm64"), "--", "sh", "-c", script)
    return runner.run(*words, timeout_s=WORK_S)


def rungs(done: subprocess.CompletedProcess[str]) -> list[str]:
    said = [text.removeprefix("--retry: ") for text in notes(done) if text.startswith("--retry: ")]
    return [text.partition(", ")[0] for text in said[:-1]]


def outcome(done: subprocess.CompletedProcess[str]) -> str:
    return notes(done)[-1].removeprefix("--retry: ")


def test_success_is_not_repeated(root: Runner) -> None:
    done = retry(root, "echo once")
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n", "")


def test_same_again_is_the_first_rung(root: Runner, counted: tuple[str, Callable[[], int]]) -> None:
    place, count = counted
    script = "printf x >>/mnt/runs; test $(wc -c </mnt/runs) -ge 2"
    done = retry(root, script, "--bind", f"{place}:/mnt")
    assert (done.returncode, count()) == (0, 2), done.stderr
    assert rungs(done) == [SAME]
    assert outcome(done) == f"it held {SAME}"


def test_address_space_is_not_randomized_on_the_second(runner: Runner) -> None:
    done = retry(runner, f"test $(cat /proc/self/personality) = {WITHOUT_ASLR}")
    assert done.returncode == 0, done.stderr
    assert rungs(done) == [SAME, NO_ASLR]
    assert outcome(done).startswith(f"it held {NO_ASLR}; to have it so from the start: setarch -R")


def test_one_processor_is_the_third(runner: Runner) -> None:
    require("processors", len(os.sched_getaffinity(0)) > 1, "there is one processor only")
    done = retry(runner, "test $(nproc) = 1")
    assert done.returncode == 0, done.stderr
    assert rungs(done) == [SAME, NO_ASLR, ONE_CPU]
    assert outcome(done).startswith(f"it held {ONE_CPU}; to have it so from the start: taskset")


def test_each_rung_changes_one_thing(root: Runner) -> None:
    """On one processor addresses are random again."""
    script = f"test $(nproc) = 1 && test $(cat /proc/self/personality) = {WITHOUT_ASLR}"
    assert retry(root, script).returncode != 0


def test_another_version_is_the_last(qemu_versions: Versions) -> None:
    """The newer one shows the processor that it emulates, the older one the host's."""
    runner, older = qemu_versions.runner, qemu_versions.older
    words = ("--retry", "--interpreter", f"arm64@{older}", runner.tree("arm64"), "--")
    done = runner.run(*words, "grep", "-q", "ARMv8", "/proc/cpuinfo", env=qemu_versions.environment)
    assert done.returncode == 0, done.stderr
    by = f"by qemu {qemu_versions.newer}"
    assert rungs(done) == [SAME, NO_ASLR, ONE_CPU, by]
    keep = f"--interpreter arm64@{qemu_versions.newer}"
    assert outcome(done) == f"it held {by}; to have it so from the start: {keep}"


def test_failure_on_every_rung_keeps_its_status(
    root: Runner, counted: tuple[str, Callable[[], int]]
) -> None:
    place, count = counted
    done = retry(root, "printf x >>/mnt/runs; exit 3", "--bind", f"{place}:/mnt")
    assert done.returncode == 3
    assert rungs(done) == [SAME, NO_ASLR, ONE_CPU]
    assert outcome(done) == f"it failed each time: {SAME}, {NO_ASLR}, {ONE_CPU}"
    assert count() == 4


def test_tree_is_as_the_attempt_before_left_it(
    root: Runner, fresh_tree: Callable[[str], HostPath]
) -> None:
    tree = fresh_tree("arm64")
    script = "test -e /left && exit 0; touch /left; exit 1"
    done = root.run("--retry", tree, "--", "sh", "-c", script)
    assert done.returncode == 0
    assert f"{SAME}, on the tree as the attempt before left it" in done.stderr


def test_ephemeral_attempts_begin_with_the_tree_as_it_is(root: Runner) -> None:
    done = retry(root, "test -e /left && exit 0; touch /left; exit 1", "--ephemeral")
    assert done.returncode == 1
    assert f"{SAME}, with the tree as it is" in done.stderr


def test_same_explanation_is_given_once(root: Runner) -> None:
    done = root.run("--retry", "--cpu", "arm926", root.tree("armhf"), "true")
    assert done.returncode == 132
    assert rungs(done) == [SAME, NO_ASLR, ONE_CPU]
    assert done.stderr.count("xbuild: known limit: ") == 1


def test_known_limit_that_would_be_met_again_is_not_retried(root: Runner) -> None:
    done = retry(root, "echo 'bwrap: Creating new namespace failed: Invalid argument' >&2; exit 1")
    assert done.returncode == 1
    assert notes(done) == ["--retry: not tried again, for this limit would be met again"]


def test_command_that_is_not_there_is_not_retried(root: Runner) -> None:
    done = root.run("--retry", root.tree("arm64"), "no-such-command")
    assert (done.returncode, notes(done)) == (127, [])


def test_what_is_ended_from_outside_is_not_retried(
    root: Runner, counted: tuple[str, Callable[[], int]]
) -> None:
    place, count = counted
    script = "printf x >>/mnt/runs; [ $(wc -c </mnt/runs) = 2 ] && kill -TERM $$; exit 1"
    done = retry(root, script, "--bind", f"{place}:/mnt")
    assert (done.returncode, count()) == (143, 2)
    assert outcome(done).startswith("not tried again, for it was ended")
    done = retry(root, "kill -TERM $$")
    assert (done.returncode, len(notes(done))) == (143, 1)


def test_hang_is_retried(root: Runner) -> None:
    require("processors", len(os.sched_getaffinity(0)) > 1, "there is one processor only")
    done = retry(root, "test $(nproc) = 1 || sleep 60", "--idle-timeout", "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("nothing has moved for 2 s") == 3
    assert outcome(done).startswith(f"it held {ONE_CPU}")


def test_run_that_is_out_of_time_is_not_retried(root: Runner) -> None:
    done = retry(root, "sleep 60", "--timeout", "1")
    assert (done.returncode, notes(done)) == (124, [])


def test_input_from_a_file_is_read_anew(root: Runner) -> None:
    path = f"{root.user.home}/input"
    with open(path, "w", encoding="ascii") as file:
        file.write("skipped\nfirst\nsecond\n")
    with open(path, "rb", buffering=0) as file:
        file.seek(len("skipped\n"))
        words = ("--retry", root.tree("arm64"), "--", "sh", "-c", "read x; echo $x; exit 1")
        done = root.run(*words, stdin=file)
    assert done.stdout.splitlines() == ["first"] * 4


def test_events_tell_of_one_run_alone(root: Runner) -> None:
    done = root.run("--retry", "--events", "-", root.tree("arm64"), "true")
    assert (done.returncode, "--retry makes several runs" in done.stderr) == (2, True)


def test_each_attempt_is_told_of_to_a_ci_service(root: Runner) -> None:
    done = retry(root, f"test $(cat /proc/self/personality) = {WITHOUT_ASLR}", "--ci=gitlab")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("section_start") == done.stdout.count("section_end") == 3


def test_processors_are_the_launchers_own_again(root: Runner) -> None:
    """A retry within a shell leaves the shell and what it starts later alone."""
    words = root.argv("--retry", root.tree("arm64"), "--", "sh", "-c", "exit 1")
    script = '"$@"; nproc'
    done = root.user.run(["sh", "-c", script, "sh", *words])
    assert done.stdout.splitlines()[-1] == str(len(os.sched_getaffinity(0)))
