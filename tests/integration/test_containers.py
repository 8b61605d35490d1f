"""Running containers: named, listed, joined, stopped, waited for, and forgotten when they end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import OpenTerminal
from tests.leftovers import descendants, left_since
from tests.patience import PATIENCE_S, await_lock, wait_for
from tests.runs import Runner, joined
from tests.terminals import status_of

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(name: str) -> Iterator[Start]:
    """Start a run called ``name`` and wait until its command says ``ready``."""
    with contextlib.ExitStack() as stack:

        def spawn(runner: Runner, script: str, *options: str) -> subprocess.Popen[str]:
            words = ("--name", name, *options, runner.tree("arm64"), "sh", "-c", script)
            process = stack.enter_context(runner.spawn(*words, stdin=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield spawn


@pytest.fixture
def name() -> str:
    """A name that no other session has."""
    return f"test-{os.getpid()}-{time.monotonic_ns()}"


IDLE = "echo ready; exec sleep 60"


def listed(runner: Runner) -> list[str]:
    return runner.command("ps", "--quiet").stdout.split()


def state_files(runner: Runner, name: str) -> list[str]:
    place = "/run/xbuild" if runner.kind == "root" else f"/tmp/xbuild-{runner.user.uid}"
    with contextlib.suppress(FileNotFoundError):
        return [file for file in os.listdir(place) if file.startswith(name)]
    return []


def test_a_run_is_listed_while_it_lives(runner: Runner, start: Start, name: str) -> None:
    script = "echo ready; read line; exit 1"
    process = start(runner, script, "--setenv", "A=1")
    assert name in listed(runner)
    document = json.loads(runner.command("ps", "--json").stdout)
    (mine,) = [each for each in document["containers"] if each["name"] == name]
    assert mine["tree"] == runner.tree("arm64")
    assert mine["argv"] == ["sh", "-c", script]
    assert abs(mine["began"] - time.time()) < PATIENCE_S
    process.communicate("\n")
    assert process.returncode == 1
    assert name not in listed(runner)
    assert state_files(runner, name) == []


def test_pid_is_of_the_launcher(root: Runner, start: Start, name: str) -> None:
    process = start(root, IDLE)
    document = json.loads(root.command("ps", "--json").stdout)
    assert [c["pid"] for c in document["containers"] if c["name"] == name] == [process.pid]


def test_exec_joins_all_namespaces(runner: Runner, start: Start, name: str) -> None:
    names = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done"
    process = start(runner, f"echo ready; {names}; exec sleep 60", "--network", "none")
    assert process.stdout is not None
    own = [process.stdout.readline() for _ in range(7)]
    done = runner.command("exec", name, "--", "sh", "-c", names)
    assert done.stdout.splitlines(keepends=True) == own, done.stderr


def test_exec_has_the_environment_and_the_files(runner: Runner, start: Start, name: str) -> None:
    start(runner, "echo here >/mnt/file; " + IDLE, "--tmpfs", "/mnt", "-E", "COLOUR=blue")
    script = "cat /mnt/file; echo $COLOUR $container; pwd; echo $TASTE"
    done = runner.command("exec", "-E", "TASTE=sweet", name, "sh", "-c", script)
    assert done.stdout.split() == ["here", "blue", "xbuild", "/root", "sweet"], done.stderr


def test_exec_by_the_tree(runner: Runner, start: Start, fresh_tree: Callable[..., str]) -> None:
    tree = fresh_tree("arm64", runner.user)
    with runner.spawn(tree, "sh", "-c", IDLE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert runner.command("exec", tree, "true").returncode == 0
        assert runner.command("stop", tree).returncode == 0
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_exec_says_which_containers_a_tree_has(root: Runner, start: Start, name: str) -> None:
    start(root, IDLE)
    with root.spawn("--name", f"{name}-too", root.tree("arm64"), "sh", "-c", IDLE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        done = root.command("exec", root.tree("arm64"), "true")
        process.kill()
    assert done.returncode == 125
    assert f"{name}, {name}-too" in done.stderr


@pytest.mark.parametrize("status", [0, 7, 124, 255])
def test_exec_has_the_status_of_its_command(
    root: Runner, start: Start, name: str, status: int
) -> None:
    start(root, IDLE)
    assert root.command("exec", name, "sh", "-c", f"exit {status}").returncode == status


def test_exec_passes_data_through(runner: Runner, start: Start, name: str) -> None:
    start(runner, IDLE)
    content = "x" * 300000
    done = runner.command("exec", name, "cat", input=content)
    assert (done.returncode, done.stdout) == (0, content)


def test_exec_of_what_is_not_there(runner: Runner, start: Start, name: str) -> None:
    start(runner, IDLE)
    done = runner.command("exec", name, "no-such-program")
    assert (done.returncode, "There is no no-such-program" in done.stderr) == (127, True)
    done = runner.command("exec", name, "/etc/passwd")
    assert (done.returncode, "Cannot execute /etc/passwd" in done.stderr) == (126, True)


def test_exec_as_another_user(root: Runner, start: Start, name: str) -> None:
    start(root, IDLE)
    done = root.command("exec", "-u", "nobody", name, "sh", "-c", "id -u; echo $USER; pwd")
    assert done.stdout.split() == ["65534", "nobody", "/"]


def test_exec_in_no_container(runner: Runner) -> None:
    done = runner.command("exec", "no-such-container", "true")
    assert done.returncode == 125
    assert "No running container is called no-such-container" in done.stderr


def test_signals_reach_a_command_that_joined(runner: Runner, start: Start, name: str) -> None:
    start(runner, IDLE)
    script = "trap 'echo caught; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    with joined(runner, name, script) as client:
        client.terminate()
        assert client.wait(PATIENCE_S) == 5
        assert client.stdout is not None
        assert client.stdout.read() == "caught\n"


def test_sigkill_of_exec_ends_its_command_alone(runner: Runner, start: Start, name: str) -> None:
    process = start(runner, IDLE)
    before = descendants()
    with joined(runner, name, "echo up; sleep 50") as client:
        client.kill()
    assert left_since(before) == {}
    assert process.poll() is None


def test_end_of_the_command_ends_those_that_joined(root: Runner, start: Start, name: str) -> None:
    process = start(root, "echo ready; read line")
    with joined(root, name, "echo up; exec sleep 1000") as client:
        process.communicate("\n")
        assert process.returncode == 0
        assert client.wait(PATIENCE_S) == 128 + signal.SIGKILL


def test_exec_on_a_terminal(
    runner: Runner, start: Start, name: str, open_terminal: OpenTerminal
) -> None:
    """The container was started without one, and its process 1 imported nothing for it."""
    start(runner, IDLE)
    words = [*runner.xbuild, "exec", name, "sh"]
    session = open_terminal(words, user=runner.user, dimensions=(33, 99))
    session.expect("# ")
    session.sendline("tty; stty size; echo $((6*7))")
    session.expect("/dev/pts/[0-9]+")
    session.expect("33 99")
    session.expect("42")
    session.sendline("exit 3")
    assert status_of(session) == 3


def test_many_commands_join_at_once(root: Runner, start: Start, name: str) -> None:
    start(root, IDLE)
    argv = [*root.xbuild, "exec", name, "sh", "-c", "echo $0; exit 9", "word"]
    joined = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(20)]
    assert [each.communicate(timeout=PATIENCE_S)[0] for each in joined] == ["word\n"] * 20
    assert {each.returncode for each in joined} == {9}


def test_stop_by_sigterm(runner: Runner, start: Start, name: str) -> None:
    process = start(runner, "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done")
    assert runner.command("stop", name).returncode == 0
    assert process.wait(PATIENCE_S) == 6


def test_stop_by_sigkill_after_the_time_of_grace(runner: Runner, start: Start, name: str) -> None:
    before = descendants()
    process = start(runner, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    assert runner.command("stop", "--kill-timeout", "0.5", name).returncode == 0
    assert process.wait(PATIENCE_S) == 128 + signal.SIGKILL
    assert left_since(before) == {}
    assert state_files(runner, name) == []


def test_stop_of_a_suspended_one(root: Runner, start: Start, name: str) -> None:
    process = start(root, IDLE)
    process.send_signal(signal.SIGSTOP)
    assert name in listed(root)
    assert root.command("stop", name).returncode == 0
    assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM


@contextlib.contextmanager
def waiting_for(runner: Runner, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have ``xbuild wait`` wait for a container."""
    argv = runner.user.argv([*runner.xbuild, "wait", name])
    with subprocess.Popen(
        argv, stderr=subprocess.DEVNULL, env=runner.user.environment(), cwd=runner.user.home
    ) as waiting:
        await_lock(waiting.pid)
        yield waiting


@pytest.mark.parametrize("status", [0, 3])
def test_wait_has_the_status(runner: Runner, start: Start, name: str, status: int) -> None:
    process = start(runner, f"echo ready; read line; exit {status}")
    with waiting_for(runner, name) as waiting:
        process.communicate("\n")
        assert waiting.wait(PATIENCE_S) == status


def test_wait_for_one_that_is_killed(root: Runner, start: Start, name: str) -> None:
    process = start(root, "echo ready; sleep 60")
    with waiting_for(root, name) as waiting:
        process.kill()
        assert waiting.wait(PATIENCE_S) == 128 + signal.SIGKILL


def test_a_name_can_be_had_once(runner: Runner, start: Start, name: str) -> None:
    start(runner, IDLE)
    done = runner.run("--name", name, runner.tree("arm64"), "true")
    assert (done.returncode, f"A container named {name} is running" in done.stderr) == (125, True)


@pytest.mark.parametrize("text", ["", "-x", "a/b", "a b", "ä", "x" * 49, "."])
def test_not_a_name(root: Runner, text: str) -> None:
    done = root.run("--name", text, root.tree("arm64"), "true")
    assert (done.returncode, "Not a name for a container" in done.stderr) == (2, True)


def test_a_killed_one_is_never_listed_and_its_entry_goes(
    runner: Runner, start: Start, name: str
) -> None:
    process = start(runner, IDLE)
    os.kill(launcher_of(process), signal.SIGKILL)
    process.wait(PATIENCE_S)

    def is_gone() -> bool:
        assert name not in listed(runner)
        return not state_files(runner, name)

    wait_for(is_gone)


def test_the_name_of_a_killed_one_is_free(runner: Runner, start: Start, name: str) -> None:
    process = start(runner, IDLE)
    os.kill(launcher_of(process), signal.SIGKILL)
    process.wait(PATIENCE_S)
    assert runner.run("--name", name, runner.tree("arm64"), "true").returncode == 0
    assert state_files(runner, name) == []


def launcher_of(process: subprocess.Popen[str]) -> int:
    return process.pid  # setpriv(1) has become it


def test_default_names_are_made_unique(root: Runner, fresh_tree: Callable[..., str]) -> None:
    tree = fresh_tree("arm64")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            process = stack.enter_context(root.spawn(tree, "sh", "-c", IDLE))
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
        document = json.loads(root.command("ps", "--json").stdout)
        names = [each["name"] for each in document["containers"] if each["tree"] == tree]
        assert len(set(names)) == 3
        assert all(each.startswith("tree") for each in names)


def test_state_of_a_user_is_where_the_session_says(
    ranged: Runner, name: str, reachable_directory: str
) -> None:
    place = f"{reachable_directory}/runtime"
    os.mkdir(place, 0o700)
    os.chown(place, ranged.user.uid, ranged.user.gid)
    settings = {"env": ranged.user.environment(XDG_RUNTIME_DIR=place)}
    with ranged.spawn("--name", name, ranged.tree("arm64"), "sh", "-c", IDLE, **settings) as run:
        assert run.stdout is not None
        run.stdout.readline()
        assert sorted(os.listdir(f"{place}/xbuild")) == [f"{name}.control", f"{name}.entry"]
        assert name not in listed(ranged)
        assert ranged.command("exec", name, "true", **settings).returncode == 0
        run.terminate()
        run.wait(PATIENCE_S)
    assert os.listdir(place) == []
    os.rmdir(place)


def test_a_directory_of_somebody_elses_is_not_trusted(
    ranged: Runner, name: str, need_root: None
) -> None:
    place = f"/tmp/xbuild-{ranged.user.uid}"
    os.mkdir(place, 0o777)
    try:
        tree = ranged.tree("arm64")
        assert ranged.run(tree, "true").returncode == 0
        done = ranged.run("--name", name, tree, "true")
        assert (done.returncode, "Cannot list the container" in done.stderr) == (125, True)
    finally:
        os.rmdir(place)


@pytest.mark.parametrize("command", ["exec", "stop", "wait", "attach", "logs"])
def test_names_are_completed(root: Runner, start: Start, name: str, command: str) -> None:
    start(root, IDLE)
    words = {"COMP_WORDS": f"xbuild {command} {name[:8]}", "COMP_CWORD": "2"}
    environment = root.user.environment(_XBUILD_COMPLETE="bash_complete", **words)
    assert f"plain,{name}" in root.command(env=environment).stdout.splitlines()
