"""Much input and output at once, and terminals in an unusual state: nothing lost, nothing stuck."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import termios
import time
import tty
from collections.abc import Iterator

import pytest

from tests.patience import PATIENCE_S
from tests.runs import Runner

PASTE = b"".join(b"%060d\n" % number for number in range(1075))  # 64 KiB in lines


class Session:
    """A command on a terminal, written and read at the same time, as a terminal emulator does.

    ``modes`` are those of the terminal before the command was started.
    """

    def __init__(self, argv: list[str], runner: Runner, *, is_raw: bool = False) -> None:
        self.primary, inside = pty.openpty()
        os.set_blocking(self.primary, False)
        if is_raw:
            tty.setraw(inside)
        self.modes = termios.tcgetattr(inside)
        self.process = subprocess.Popen(
            argv,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=runner.user.environment(),
            cwd=runner.user.home,
            start_new_session=True,
        )
        self.inside = inside

    def read_until(self, mark: bytes, typed: bytes = b"", *, pause_s: float = 0.0) -> bytes:
        """Write ``typed`` and read until ``mark`` was shown, or to the end for an empty one."""
        shown, deadline = b"", time.monotonic() + PATIENCE_S
        while not mark or mark not in shown:
            assert time.monotonic() < deadline, f"stuck after {len(shown)} bytes: {shown[-200:]!r}"
            outputs = [self.primary] if typed else []
            ready, writable, _ = select.select([self.primary], outputs, (), 0.1)
            if writable:
                typed = typed[os.write(self.primary, typed) :]
            if ready:
                time.sleep(pause_s)
                shown += os.read(self.primary, 65536)
            elif not mark and self.process.poll() is not None:
                break
        return shown

    def close(self) -> None:
        """End what still runs."""
        self.process.kill()
        self.process.wait()
        os.close(self.primary)
        os.close(self.inside)


@pytest.fixture
def sessions(root: Runner) -> Iterator[list[Session]]:
    made: list[Session] = []
    yield made
    for session in made:
        session.close()


def start(sessions: list[Session], root: Runner, script: str) -> Session:
    argv = root.argv(root.tree("arm64"), "--", "sh", "-c", script)
    sessions.append(Session(argv, root))
    return sessions[-1]


def test_long_paste_arrives_whole(sessions: list[Session], root: Runner) -> None:
    session = start(sessions, root, f"stty -echo; echo go; head -c {len(PASTE)} | cksum; cat")
    session.read_until(b"go\r\n")
    shown = session.read_until(b"\r\n", PASTE)
    expected = subprocess.run(["cksum"], input=PASTE, stdout=subprocess.PIPE, check=True).stdout
    assert shown == expected.replace(b"\n", b"\r\n")


def test_long_paste_with_echo_gets_through(sessions: list[Session], root: Runner) -> None:
    """Both directions are full. The kernel drops echoes that nobody reads in time (n_tty.c)."""
    session = start(sessions, root, f"echo go; head -c {len(PASTE)} >/dev/null; echo over")
    session.read_until(b"go\r\n")
    shown = session.read_until(b"over\r\n", PASTE)
    assert len(shown) > len(PASTE) / 2


def test_long_output_arrives_whole(sessions: list[Session], root: Runner) -> None:
    size = 5 << 20
    session = start(sessions, root, f"head -c {size} /dev/zero | tr '\\0' x; printf end; exit 5")
    shown = session.read_until(b"")
    assert (len(shown), shown.strip(b"x")) == (size + 3, b"end")
    assert session.process.wait(PATIENCE_S) == 5


def test_slow_reader_loses_nothing(sessions: list[Session], root: Runner) -> None:
    session = start(sessions, root, "head -c 400000 /dev/zero | tr '\\0' x; printf end")
    assert len(session.read_until(b"", pause_s=0.005)) == 400003


def test_output_that_would_block_is_waited_for(sessions: list[Session], root: Runner) -> None:
    """Another program may have set O_NONBLOCK on the terminal that it shares with xbuild."""
    argv = root.argv(root.tree("arm64"), "--", "head", "-c", "1000000", "/dev/zero")
    leave = "import os, sys; os.set_blocking(1, False); os.execv(sys.argv[1], sys.argv[1:])"
    sessions.append(Session(["/usr/bin/python3", "-c", leave, *argv], root))
    assert len(sessions[-1].read_until(b"", pause_s=0.002)) == 1000000


def test_every_byte_passes_a_raw_terminal(sessions: list[Session], root: Runner) -> None:
    session = start(sessions, root, "stty raw -echo; echo go; head -c 256 | od -An -v -t u1")
    session.read_until(b"go\n")
    shown = session.read_until(b"255\n", bytes(range(256)))
    assert [int(word) for word in shown.split()] == list(range(256))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--", "true"), 0),
        (("--", "sh", "-c", "stty raw -echo; exit 9"), 9),
        (("--", "/nonexistent"), 127),
        (("--", "/etc/passwd"), 126),
        (("--chdir=/nonexistent", "--", "true"), 125),
        (("--tmpfs=/mnt:nonsense=1", "--", "true"), 125),
        (("--", "sh", "-c", "stty raw; kill -TERM $$"), 143),
        (("--", "sh", "-c", "stty raw; kill -KILL $$"), 137),
    ],
)
def test_terminal_is_restored(
    sessions: list[Session], root: Runner, arguments: tuple[str, ...], status: int
) -> None:
    at = arguments.index("--")
    argv = root.argv(*arguments[:at], root.tree("arm64"), *arguments[at:])
    session = Session(argv, root)
    sessions.append(session)
    session.read_until(b"")
    assert session.process.wait(PATIENCE_S) == status
    assert termios.tcgetattr(session.inside) == session.modes


def test_terminal_is_restored_after_a_signal_to_xbuild(
    sessions: list[Session], root: Runner
) -> None:
    session = start(sessions, root, "echo go; exec sleep 100")
    session.read_until(b"go\r\n")
    assert termios.tcgetattr(session.inside) != session.modes
    session.process.terminate()
    assert session.process.wait(PATIENCE_S) == 143
    assert termios.tcgetattr(session.inside) == session.modes


def test_raw_terminal_is_left_raw(sessions: list[Session], root: Runner) -> None:
    """As an editor finds it that starts xbuild: its own modes are what to come back to."""
    session = Session(root.argv(root.tree("arm64"), "--", "echo", "x"), root, is_raw=True)
    sessions.append(session)
    session.read_until(b"")
    assert termios.tcgetattr(session.inside) == session.modes


def test_terminal_without_a_session_hangs_up(sessions: list[Session], root: Runner) -> None:
    """Nobody sends SIGHUP where the terminal is not the controlling one."""
    session = start(sessions, root, "echo go; cat; echo over >/dev/null")
    session.read_until(b"go\r\n")
    os.close(session.inside)
    os.close(session.primary)
    session.primary, session.inside = os.pipe()
    session.process.wait(PATIENCE_S)


def test_quoting_of_shell_words_is_not_ours(sessions: list[Session], root: Runner) -> None:
    text = "a b\t'c' \"d\" $e `f` \\g *"
    session = start(sessions, root, f"printf %s {shlex.quote(text)}")
    assert session.read_until(b"").decode() == text
