"""What goes wrong around running containers: deaths, closed terminals, hidden processes, limits."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import OpenTerminal
from tests.installation import copy_for
from tests.leftovers import await_program, descendants, left_since
from tests.patience import PATIENCE_S, wait_for
from tests.runs import Kind, Runner, joined
from tests.terminals import hang_up
from xbuild.record import HostPath

Start = Callable[..., subprocess.Popen[str]]
IDLE = "echo ready; exec sleep 60"


@pytest.fixture
def name() -> str:
    return f"test-{os.getpid()}-{time.monotonic_ns()}"


@pytest.fixture
def start(name: str) -> Iterator[Start]:
    """Start a run called ``name`` that says ``ready``; it is killed at the end."""
    with contextlib.ExitStack() as stack:

        def spawn(runner: Runner, tree: str, *words: str) -> subprocess.Popen[str]:
            process = stack.enter_context(runner.spawn("--name", name, tree, *words))
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield spawn


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def init_of(process: subprocess.Popen[str], kind: Kind) -> int:
    (child,) = children_of(process.pid)
    return child if kind == "root" else children_of(child)[0]


@pytest.mark.parametrize("kind", ["root", "range"])
@pytest.mark.parametrize("victim", ["launcher", "init", "command"])
def test_death_of_a_container_ends_those_that_joined(
    runner_of: Callable[[Kind], Runner], start: Start, name: str, kind: Kind, victim: str
) -> None:
    runner, before = runner_of(kind), descendants()
    process = start(runner, runner.tree("arm64"), "sh", "-c", IDLE)
    with joined(runner, name, "echo up; sleep 50 & sleep 51") as client:
        init = init_of(process, kind)
        pid = {"launcher": process.pid, "init": init, "command": children_of(init)[0]}[victim]
        os.kill(pid, signal.SIGKILL)
        assert client.wait(PATIENCE_S) == 128 + signal.SIGKILL
    process.wait(PATIENCE_S)
    assert left_since(before) == {}
    assert name not in runner.command("ps", "-q").stdout.split()


def test_death_of_an_interpreter_that_joined(root: Runner, start: Start, name: str) -> None:
    process = start(root, root.tree("arm64"), "sh", "-c", IDLE)
    with joined(root, name, "echo up; exec sleep 50") as client:
        command, interpreter = children_of(init_of(process, "root"))
        os.kill(interpreter, signal.SIGKILL)
        assert client.wait(PATIENCE_S) == 128 + signal.SIGKILL
    assert process.poll() is None
    assert os.path.exists(f"/proc/{command}")


def test_interrupt_twice(runner: Runner, start: Start, name: str) -> None:
    """The first is the command's to handle, and so is the second, which ends it."""
    before = descendants()
    script = "trap 'echo once; trap - INT' INT; echo ready; while :; do sleep 0.05; done"
    process = start(runner, runner.tree("arm64"), "sh", "-c", script)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "once\n"
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.returncode == 128 + signal.SIGINT
    assert left_since(before) == {}


def test_interrupts_in_a_row_leave_nothing(runner: Runner, start: Start, name: str) -> None:
    before = descendants()
    process = start(runner, runner.tree("arm64"), "sh", "-c", IDLE)
    for _ in range(20):
        process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 128 + signal.SIGINT
    assert left_since(before) == {}
    assert name not in runner.command("ps", "-q").stdout.split()


def test_interrupt_key_twice_in_a_shell_that_joined(
    root: Runner, start: Start, name: str, open_terminal: OpenTerminal
) -> None:
    start(root, root.tree("arm64"), "sh", "-c", IDLE)
    session = open_terminal([*root.xbuild, "exec", name, "sh"])
    session.expect("# ")
    session.sendline("sleep 1000; echo $((40+2))")
    await_program("sleep", "1000")
    session.send("\x03\x03")
    session.expect("# ")
    session.sendline("echo $((50+2))")
    session.expect("52")


@pytest.mark.parametrize("way", ["run", "exec"])
def test_closed_terminal_leaves_nothing(
    runner: Runner, start: Start, name: str, open_terminal: OpenTerminal, way: str
) -> None:
    process = start(runner, runner.tree("arm64"), "sh", "-c", IDLE)
    before = descendants()
    words = ["exec", name] if way == "exec" else ["run", runner.tree("arm64")]
    session = open_terminal([*runner.xbuild, *words, "--", "sh"], user=runner.user)
    session.expect("# ")
    session.sendline("sleep 1071")
    await_program("sleep", "1071")
    hang_up(session)
    assert left_since(before) == {}
    assert process.poll() is None


def hidden_proc(runner: Runner, *words: str) -> list[str]:
    """Return the command line that runs xbuild where proc hides other users' processes."""
    script = 'mount -t proc -o hidepid=invisible proc /proc && exec "$@"'
    argv = runner.user.argv([*runner.xbuild, *words])
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *argv]


@pytest.mark.parametrize("kind", ["root", "range", "plain"])
def test_proc_that_hides_processes(
    runner_of: Callable[[Kind], Runner], need_root: None, name: str, kind: Kind
) -> None:
    runner = runner_of(kind)
    settings = {"env": runner.user.environment(), "cwd": runner.user.home, "text": True}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = hidden_proc(runner, *words)
        return subprocess.run(command, capture_output=True, timeout=PATIENCE_S, **settings)  # type: ignore[call-overload,no-any-return]  # as in runs

    words = hidden_proc(runner, "run", "--name", name, runner.tree("arm64"), "sh", "-c", IDLE)
    with subprocess.Popen(words, stdout=subprocess.PIPE, **settings) as process:  # type: ignore[call-overload]  # as in runs
        assert process.stdout.readline() == "ready\n"
        assert name in call("ps", "-q").stdout.split()
        assert call("exec", name, "sh", "-c", "exit 6").returncode == 6
        assert call("stop", "--kill-timeout", "1", name).returncode == 0
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
    late = call("run", "--idle-timeout", "1", runner.tree("arm64"), "sleep", "60")
    assert (late.returncode, "Time is up" in late.stderr) == (124, True)
    busy = "for i in $(seq 12); do echo $i; sleep 0.2; done; exit 3"
    done = call("run", "--idle-timeout", "2", runner.tree("arm64"), "sh", "-c", busy)
    assert done.returncode == 3


def test_no_process_left_to_be_had(root: Runner, name: str) -> None:
    held = root.command("hold", "--pids", "1", "--name", name, root.tree("arm64"))
    assert held.returncode == 0, held.stderr
    try:
        with joined(root, name, "echo up; exec sleep 50") as client:  # qemu has a thread besides
            done = root.command("exec", name, "true")
            client.kill()
        assert done.returncode == 125
        assert f"Container {name} cannot start a process" in done.stderr
        wait_for(lambda: root.command("exec", name, "true").returncode == 0)
    finally:
        assert root.command("stop", "--kill-timeout", "1", name).returncode == 0
        os.unlink(f"/var/log/xbuild/{name}.log")


def test_tree_removed_while_it_is_used(
    runner: Runner, start: Start, name: str, fresh_tree: Callable[..., HostPath]
) -> None:
    tree, before = fresh_tree("arm64", runner.user), descendants()
    process = start(runner, tree, "sh", "-c", "echo ready; while :; do :; done")
    shutil.rmtree(tree)
    assert name in runner.command("ps", "-q").stdout.split()
    done = runner.command("exec", name, "/bin/sh")
    assert (done.returncode, "No such file or directory" in done.stderr) == (125, True)
    assert runner.command("stop", name).returncode == 0
    assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
    assert left_since(before) == {}


def test_join_while_the_launcher_is_suspended(runner: Runner, start: Start, name: str) -> None:
    process = start(runner, runner.tree("arm64"), "sh", "-c", IDLE)
    process.send_signal(signal.SIGSTOP)
    assert runner.command("exec", name, "sh", "-c", "exit 5").returncode == 5
    assert name in runner.command("ps", "-q").stdout.split()
    process.send_signal(signal.SIGCONT)
    process.terminate()
    assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_container_inside_a_container(root: Runner, reachable_directory: HostPath) -> None:
    """All of it again, one level down, where nothing of the outer one's entries is to be seen."""
    place = HostPath(f"{reachable_directory}/inner")
    os.mkdir(place, 0o755)
    program = copy_for(root.user, place)
    inner = f"{program} run --name inner {root.tree('arm64')} --"
    script = f"""
        {inner} sh -c 'echo ready; : >/tmp/ready; exec sleep 1000' &
        until {program} exec inner test -e /tmp/ready 2>/dev/null; do sleep 0.2; done
        {program} ps -q; {program} exec inner uname -m; {program} stop inner
        wait $!; echo $?; {program} ps -q
        """
    shown = root.output("/", "--", "sh", "-c", script)
    assert sorted(shown.split()) == ["143", "aarch64", "inner", "ready"]


def test_a_guest_cannot_ask_process_one(root: Runner, start: Start, name: str) -> None:
    """Even where it is shown the socket: what connects from inside is turned away at once."""
    start(root, root.tree("arm64"), "sh", "-c", IDLE)  # the directory is there as long as this is
    words = ["--bind", "/run/xbuild:/mnt", "/", "--", "/usr/bin/python3", "-c", ASKING]
    done = root.run("--name", f"{name}-too", *words, f"{name}-too")
    assert done.stdout == "closed\n", done.stderr


ASKING = """
import marshal, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(f"/mnt/{sys.argv[1]}.control")
try:
    s.send(marshal.dumps(("terminal",)))
    answer = s.recv(100)
except OSError:
    answer = b""
print("closed" if not answer else answer)
"""
