"""Containers in the background: started, looked at, attached to, held for others to join."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import OpenTerminal
from tests.leftovers import descendants, left_since
from tests.patience import PATIENCE_S, await_lock, wait_for
from tests.runs import Runner
from tests.terminals import await_keys, hang_up
from xbuild.diagnosis.limits import limit_named

Begin = Callable[..., str]
SCRATCH = {"options": ("--tmpfs", "/mnt")}
"""A place that what joins has in common with the container."""


@pytest.fixture
def begin() -> Iterator[Begin]:
    """``begin(runner, "start", SCRIPT)``: start a container and return its name."""
    with contextlib.ExitStack() as stack:

        def call(runner: Runner, command: str, *script: str, options: tuple[str, ...] = ()) -> str:
            name = f"test-{os.getpid()}-{time.monotonic_ns()}"
            words = ["sh", "-c", *script] if script else []
            place = (command, "--name", name, *options, runner.tree("arm64"), *words)
            done = runner.command(*place)
            assert (done.returncode, done.stdout) == (0, f"{name}\n"), done.stderr
            stack.callback(forget, runner, name)
            return name

        yield call


def forget(runner: Runner, name: str) -> None:
    runner.command("stop", "--kill-timeout", "0.1", name)
    log = runner.command("logs", name)
    if log.returncode == 0 and runner.kind == "root":
        os.unlink(f"/var/log/xbuild/{name}.log")
        with contextlib.suppress(OSError):
            os.rmdir("/var/log/xbuild")


def let_go(runner: Runner, name: str) -> None:
    """Have /mnt/end be there, which a container may end at before who made it does."""
    assert runner.command("exec", name, "touch", "/mnt/end").returncode in (0, 128 + signal.SIGKILL)


def test_start_outlives_xbuild(runner: Runner, begin: Begin) -> None:
    before = descendants()
    name = begin(runner, "start", "echo one; tty; echo two >&2; sleep 60")
    assert runner.command("exec", name, "true").returncode == 0
    wait_for(lambda: "two" in runner.command("logs", name).stdout)
    assert runner.command("stop", name).returncode == 0
    assert left_since(before) == {}
    shown = runner.command("logs", name).stdout.splitlines()
    assert [shown[0], shown[1][:9], shown[2]] == ["one", "/dev/pts/", "two"]


def test_start_of_what_is_not_there(runner: Runner) -> None:
    done = runner.command("start", "--name", "never", runner.tree("arm64"), "no-such-program")
    assert (done.returncode, done.stdout) == (127, "")
    assert "There is no no-such-program" in done.stderr
    assert "never" not in runner.command("ps", "-q").stdout
    assert runner.command("logs", "never").returncode == 125


def test_wait_for_a_detached_one(root: Runner, begin: Begin) -> None:
    name = begin(root, "start", "while [ ! -e /mnt/end ]; do sleep 0.05; done; exit 6", **SCRATCH)
    with subprocess.Popen([*root.xbuild, "wait", name]) as waiting:
        await_lock(waiting.pid)
        let_go(root, name)
        assert waiting.wait(PATIENCE_S) == 6


def test_time_limit_of_a_detached_one(root: Runner, begin: Begin) -> None:
    name = begin(root, "start", "sleep 1000", options=("--timeout", "5"))
    assert root.command("wait", name).returncode == 124
    assert "Time is up" in root.command("logs", name).stdout


def test_logs_follow_to_the_end(runner: Runner, begin: Begin) -> None:
    name = begin(runner, "start", "for i in 1 2 3; do echo $i; sleep 0.4; done")
    assert runner.command("logs", "-f", name).stdout == "1\n2\n3\n"


def test_logs_of_nobody(root: Runner) -> None:
    done = root.command("logs", "no-such-container")
    assert (done.returncode, "There is no log" in done.stderr) == (125, True)


def test_attach_and_detach(runner: Runner, begin: Begin, open_terminal: OpenTerminal) -> None:
    name = begin(runner, "start", "echo before; while read x; do echo got $x; done; exit 5")
    words = [*runner.xbuild, "attach", name]
    first = open_terminal(words, user=runner.user, dimensions=(40, 111))
    first.expect("before")  # what it wrote before
    first.sendline("apples")
    first.expect("got apples")
    first.send("\x1d\x1d\x1d")
    first.expect("detached")
    first.wait()
    assert first.exitstatus == 0
    second = open_terminal(words, user=runner.user)
    second.expect("got apples")
    second.sendline("pears")
    second.expect("got pears")
    second.sendeof()
    second.wait()
    assert second.exitstatus == 5
    assert "got pears" in runner.command("logs", name).stdout


def test_closed_terminal_of_who_is_attached_ends_that_one_alone(
    runner: Runner, begin: Begin, open_terminal: OpenTerminal
) -> None:
    name = begin(runner, "start", "while read x; do echo got $x; done")
    before = descendants()
    session = open_terminal([*runner.xbuild, "attach", name], user=runner.user)
    session.sendline("apples")
    session.expect("got apples")
    hang_up(session)
    assert left_since(before) == {}
    assert name in runner.command("ps", "-q").stdout.split()
    another = open_terminal([*runner.xbuild, "attach", name], user=runner.user)
    another.sendline("pears")
    another.expect("got pears")


def test_attached_terminal_has_the_size(
    root: Runner, begin: Begin, open_terminal: OpenTerminal
) -> None:
    name = begin(root, "start", "while read x; do stty size; done")
    session = open_terminal([*root.xbuild, "attach", name], dimensions=(40, 111))
    session.sendline("")
    session.expect("40 111")
    session.setwinsize(50, 70)
    session.sendline("")
    session.expect("50 70")


def test_two_are_attached_at_once(root: Runner, begin: Begin, open_terminal: OpenTerminal) -> None:
    name = begin(root, "start", "while read x; do echo got $x; done")
    sessions = [open_terminal([*root.xbuild, "attach", name]) for _ in range(2)]
    for session in sessions:
        await_keys(session)
    sessions[0].sendline("pears")
    for session in sessions:
        session.expect("got pears")


def test_attach_without_a_terminal_shows_the_rest(root: Runner, begin: Begin) -> None:
    script = "echo up; while [ ! -e /mnt/end ]; do sleep 0.05; done; echo down; exit 4"
    name = begin(root, "start", script, **SCRATCH)
    argv = [*root.xbuild, "attach", name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as attached:
        assert attached.stdout is not None
        assert attached.stdout.readline() == "up\n"
        let_go(root, name)
        assert attached.stdout.read().split() == ["down"]
    assert attached.returncode == 4


def test_one_attached_that_does_not_read_is_let_go(root: Runner, begin: Begin) -> None:
    """The container waits for it a while, as for a terminal, and then goes on."""
    script = "echo up; while [ ! -e /mnt/end ]; do sleep 0.05; done; yes | head -c 3000000;"
    name = begin(root, "start", f"{script} exec sleep 1000", **SCRATCH)
    with subprocess.Popen([*root.xbuild, "attach", name], stdout=subprocess.PIPE) as stuck:
        assert stuck.stdout is not None
        assert stuck.stdout.readline().strip() == b"up"
        stuck.send_signal(signal.SIGSTOP)
        let_go(root, name)
        wait_for(lambda: os.path.getsize(f"/var/log/xbuild/{name}.log") >= 3000000)
        stuck.kill()


def test_attach_to_a_run_in_the_foreground(root: Runner, begin: Begin) -> None:
    name = begin(root, "hold")
    done = root.command("attach", name)
    assert (done.returncode, "has no console" in done.stderr) == (125, True)


def test_hold_keeps_what_commands_leave_to_each_other(runner: Runner, begin: Begin) -> None:
    before = descendants()
    name = begin(runner, "hold", options=("--tmpfs", "/mnt"))
    assert runner.command("exec", name, "sh", "-c", "echo x >/mnt/y").returncode == 0
    assert runner.command("exec", name, "cat", "/mnt/y").stdout == "x\n"
    runner.command("exec", name, "sh", "-c", "sleep 60 </dev/null >/dev/null 2>&1 &")
    there = ("exec", name, "sh", "-c", "cat /proc/*/comm")
    wait_for(lambda: runner.command(*there).stdout.count("sleep") == 1)
    assert runner.command("stop", name).returncode == 0
    assert left_since(before) == {}


def test_hold_takes_no_command(root: Runner) -> None:
    done = root.command("hold", root.tree("arm64"), "true")
    assert (done.returncode, "has no command" in done.stderr) == (2, True)


@pytest.mark.parametrize("command", ["start", "hold", "exec"])
def test_help_says_what_a_command_is_for(root: Runner, command: str) -> None:
    done = root.command(command, "--help")
    assert done.returncode == 0
    assert f"Usage: xbuild {command}" in done.stdout


CRASH = "sh -c 'kill -SEGV $$'; exit 1"
KNOWN = "xbuild: known limit: "


def test_a_failure_in_the_background_is_explained_in_the_log(runner: Runner, begin: Begin) -> None:
    name = begin(runner, "start", CRASH)
    runner.command("wait", name)  # it may be over already
    shown = runner.command("logs", name).stdout
    assert f"{KNOWN}{limit_named('crash').cause}\n seen: qemu: uncaught target signal 11" in shown


def test_a_failure_is_explained_to_who_is_attached(runner: Runner, begin: Begin) -> None:
    name = begin(runner, "start", f"sleep 2; {CRASH}")
    done = runner.command("attach", name)
    assert (done.returncode, done.stderr.count(KNOWN)) == (1, 1)
    assert f"{KNOWN}{limit_named('crash').cause}" in done.stderr


def test_a_processor_that_what_joined_lacks_is_named(root: Runner, begin: Begin) -> None:
    name = begin(root, "hold", options=("--cpu", "nonsuch"))
    done = root.command("exec", name, "true")
    assert done.returncode == 1
    assert f"{KNOWN}{limit_named('cpu-unknown').cause}" in done.stderr


def test_a_failure_of_what_joined_is_explained(runner: Runner, begin: Begin) -> None:
    name = begin(runner, "hold")
    by_signal = runner.command("exec", name, "sh", "-c", "kill -SEGV $$")
    assert by_signal.returncode == 139
    assert f"{KNOWN}{limit_named('crash').cause}" in by_signal.stderr
    by_output = runner.command("exec", "--explain", name, "sh", "-c", f"echo said; {CRASH}")
    assert (by_output.returncode, by_output.stdout) == (1, "said\n")
    assert f"{KNOWN}{limit_named('crash').cause}" in by_output.stderr
    assert " seen: qemu: uncaught target signal 11" in by_output.stderr


def test_on_a_terminal_what_joined_is_explained_unasked(
    root: Runner, begin: Begin, open_terminal: OpenTerminal
) -> None:
    name = begin(root, "hold", options=("--tmpfs", "/mnt:size=64k"))
    full = "dd if=/dev/zero of=/mnt/x bs=64k count=2"
    session = open_terminal([*root.xbuild, "exec", name, "sh", "-c", full], user=root.user)
    session.expect_exact(f"known limit: {limit_named('tmpfs-full').cause}")  # of this container's
    session.read()


def test_a_success_of_what_joined_is_passed_on_whole(root: Runner, begin: Begin) -> None:
    name = begin(root, "hold")
    done = root.command("exec", "--explain", name, "sh", "-c", "seq 50000; seq 3 >&2")
    assert (done.returncode, done.stderr) == (0, "1\n2\n3\n")
    assert done.stdout == "".join(f"{n}\n" for n in range(1, 50001))


NOT_DETACHED = {
    "No such option: --retry\nhint: --retry is an option of xbuild run": ("--retry",),
    "No such option: --certify\nhint: --certify is an option of xbuild run": ("--certify",),
    "--json goes with --dry-run": ("--json",),
    "--distcc and --jobs-from are for trees": ("--ccache", "--bind", "/etc"),
    "No set of native tools was prepared": ("--distcc", "127.0.0.1"),
    "Cannot read the hosts in /no/such": ("--jobs-from=/no/such",),
}


@pytest.mark.parametrize("verb", ["start", "hold"])
@pytest.mark.parametrize("said", NOT_DETACHED)
def test_what_nobody_waits_for_is_refused_or_done(root: Runner, verb: str, said: str) -> None:
    tree = "/etc/passwd" if "for trees" in said else root.tree("arm64")
    command = ("true",) if verb == "start" else ()
    done = root.command(verb, "--name", "never", *NOT_DETACHED[said], tree, *command)
    assert done.returncode in (2, 125)
    assert said in done.stderr
    assert "hint: " in done.stderr


@pytest.mark.parametrize(
    ("option", "instead"),
    [("--explain", "xbuild exec --explain"), ("--as-pid1", "xbuild start --as-pid1")],
)
def test_what_is_of_a_command_is_not_held(root: Runner, option: str, instead: str) -> None:
    done = root.command("hold", option, "--name", "never", root.tree("arm64"))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"hint: {instead}" in done.stderr


def test_what_a_profile_says_for_runs_is_left_out_with_a_word(root: Runner) -> None:
    done = root.command("start", "--dry-run", "--profile", "ci", root.tree("arm64"), "true")
    left_out = [line for line in done.stderr.splitlines() if "left out by xbuild start" in line]
    assert [line.split()[1] for line in left_out] == ["console", "ci"]
