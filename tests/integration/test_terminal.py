"""A shell on a terminal behaves as it would without xbuild: keys, jobs, sizes, sessions."""

from __future__ import annotations

from collections.abc import Callable

import pexpect
import pytest

from tests.conftest import OpenTerminal
from tests.leftovers import await_foreground, await_program
from tests.runs import Runner
from tests.terminals import hang_up, status_of

PROMPT = "ready> "
SHELL = ("/bin/bash", "--norc", "--noprofile", "-i")

Shell = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture
def on_terminal(root: Runner, open_terminal: OpenTerminal) -> Shell:
    """``on_terminal("tty", dimensions=…)``: run a command of the arm64 tree on a terminal."""

    def start(*command: str, runner: Runner = root, **settings: object) -> pexpect.spawn[str]:
        # Without a history file, which bash would write into the shared tree.
        variables = (f"--setenv=PS1={PROMPT}", "--setenv=HISTFILE=")
        argv = runner.argv(*variables, runner.tree("arm64"), "--", *command)
        return open_terminal(argv, user=runner.user, **settings)  # type: ignore[arg-type]

    return start


@pytest.fixture
def shell(on_terminal: Shell) -> pexpect.spawn[str]:
    session = on_terminal(*SHELL)
    session.expect_exact(PROMPT)
    return session


def say(session: pexpect.spawn[str], line: str) -> str:
    """Let a shell run a line, and return what that printed."""
    session.sendline(line)
    session.expect_exact(line + "\r\n")
    session.expect_exact(PROMPT)
    assert session.before is not None
    return session.before.replace("\r\n", "\n")


def test_output_is_as_printed(on_terminal: Shell) -> None:
    session = on_terminal("printf", "x")
    assert session.read() == "x"


def test_every_kind_of_user_has_a_terminal(
    runner: Runner, on_terminal: Shell, open_terminal: OpenTerminal
) -> None:
    script = "tty; stty size; printf 'to the terminal\\n' >/dev/tty; test -t 0 -a -t 1 -a -t 2"
    session = on_terminal("sh", "-ec", script, runner=runner, dimensions=(11, 77))
    assert session.read().endswith("/dev/pts/0\r\n11 77\r\nto the terminal\r\n")
    assert status_of(session) == 0


def test_user_owns_the_terminal(root: Runner, open_terminal: OpenTerminal) -> None:
    command = ["--user=nobody", root.tree("arm64"), "--", "stat", "-c", "%U %G %a", "/dev/pts/0"]
    session = open_terminal(root.argv(*command), user=root.user)
    assert session.read() == "nobody tty 620\r\n"


def test_window_size_follows(shell: pexpect.spawn[str]) -> None:
    say(shell, "trap 'stty size' WINCH")
    shell.setwinsize(33, 99)
    shell.expect_exact("33 99\r\n")
    shell.sendline("")
    shell.expect_exact(PROMPT)
    assert say(shell, "stty size") == "33 99\n"


def test_interrupt_key_ends_the_job_alone(shell: pexpect.spawn[str]) -> None:
    shell.sendline("sleep 1000; echo not here")
    await_program("sleep", "1000")
    shell.sendintr()
    shell.expect_exact(PROMPT)
    assert "not here\r\n" not in (shell.before or "").partition("^C")[2]
    assert say(shell, "echo $?") == "130\n"


def test_quit_key_ends_the_job(shell: pexpect.spawn[str]) -> None:
    shell.sendline("ulimit -c 0; sleep 1000")
    await_program("sleep", "1000")
    shell.sendcontrol("\\")
    shell.expect_exact("Quit")
    shell.expect_exact(PROMPT)
    assert say(shell, "echo $?") == "131\n"


def test_suspend_key_and_job_control(shell: pexpect.spawn[str]) -> None:
    shell.sendline("sleep 1000")
    await_program("sleep", "1000")
    shell.sendcontrol("z")
    shell.expect_exact("Stopped")
    shell.expect_exact(PROMPT)
    assert "Stopped" in say(shell, "jobs")
    say(shell, "bg")
    assert "Running" in say(shell, "jobs")
    shell.sendline("fg")
    shell.expect_exact("sleep 1000\r\n")
    await_foreground("sleep", "1000")
    shell.sendintr()
    shell.expect_exact(PROMPT)
    assert say(shell, "jobs; echo none") == "none\n"


def test_end_of_file_key_ends_the_shell(shell: pexpect.spawn[str]) -> None:
    say(shell, "(exit 7)")
    shell.sendeof()
    assert status_of(shell) == 7


def test_background_job_does_not_hold_up_the_end(shell: pexpect.spawn[str]) -> None:
    shell.sendline("sleep 1000 & disown; exit 3")
    assert status_of(shell) == 3


def test_terminal_is_there_for_who_comes_back_to_it(on_terminal: Shell) -> None:
    """The command lets go of the terminal for a while: that is not the end of it."""
    script = "exec <&- >&- 2>&-; sleep 0.5; echo still here >/dev/tty"
    session = on_terminal("sh", "-c", script)
    assert session.read() == "still here\r\n"


def test_unechoed_input_is_not_shown(shell: pexpect.spawn[str]) -> None:
    shell.sendline("read -rs -p 'password: ' word; echo; echo got ${#word}")
    shell.expect_exact("word}\r\n")
    shell.expect_exact("password: ")
    shell.sendline("swordfish")
    shell.expect_exact(PROMPT)
    assert shell.before == "\r\ngot 9\r\n"


@pytest.mark.parametrize("script", ["cat", "trap '' HUP; cat; echo over"])
def test_hang_up_ends_the_container(on_terminal: Shell, script: str) -> None:
    """The fixture that looks for processes left behind fails otherwise."""
    session = on_terminal("sh", "-c", script)
    session.sendline("there?")
    session.expect_exact("there?\r\nthere?\r\n")
    hang_up(session)
    assert session.signalstatus is None


def test_killed_command_is_reported(on_terminal: Shell) -> None:
    assert status_of(on_terminal("sh", "-c", "kill -TERM $$")) == 143
    assert status_of(on_terminal("sh", "-c", "kill -KILL $$")) == 137


def test_script_records_a_session(
    root: Runner, open_terminal: OpenTerminal, tmp_path_factory: pytest.TempPathFactory
) -> None:
    record = tmp_path_factory.mktemp("script") / "record"
    inner = " ".join(root.argv(root.tree("arm64"), "--", "tty"))
    command = ["script", "--quiet", "--return", "--command", inner, str(record)]
    session = open_terminal(command, user=root.user)
    assert session.read() == "/dev/pts/0\r\n"
    assert status_of(session) == 0
    assert "/dev/pts/0\r\n" in record.read_bytes().decode()


def test_script_without_a_terminal_of_its_own(root: Runner) -> None:
    """As under cron or ssh without -t, where something else made a terminal."""
    inner = " ".join(root.argv(root.tree("arm64"), "--", "tty"))
    command = ["script", "--quiet", "--return", "--command", inner, "/dev/null"]
    done = root.user.run(command)
    # script(1) types an end-of-file mark of its own, a NUL here.
    assert (done.returncode, done.stdout.removeprefix("^@")) == (0, "/dev/pts/0\n"), done.stderr
