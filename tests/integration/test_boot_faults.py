"""Boots that go wrong: no init, one that ends or will not, a killed xbuild, two at once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from tests.bootable import boot
from tests.leftovers import descendants, left_since
from tests.patience import PATIENCE_S, wait_for
from tests.runs import Kind, Runner, write_program
from tests.terminals import status_of
from tests.trees import tree_hash
from xbuild.record import HostPath

BusyboxTree = Callable[..., HostPath]
_DEAF = "#!/bin/sh\ntrap '' TERM\necho up\nwhile :; do sleep 0.2; done\n"
_STAYS = "#!/bin/sh\ntrap 'echo asked; exit 0' TERM\necho up\nwhile :; do sleep 0.2; done\n"


def listening(runner: Runner, tree: HostPath) -> subprocess.Popen[str]:
    """Start a boot that heeds signals, whatever the tests themselves were started to ignore."""
    heed = ["env", "--default-signal=HUP,INT,TERM"]
    return subprocess.Popen(
        [*heed, *runner.argv("--boot", tree)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        env=runner.user.environment(), cwd=runner.user.home,
    )  # fmt: skip


@pytest.fixture
def with_init(busybox_tree: BusyboxTree) -> Callable[[Runner, str], HostPath]:
    """``with_init(runner, script)``: a tree whose /sbin/init is that script."""

    def make(runner: Runner, script: str) -> HostPath:
        tree: HostPath = busybox_tree("arm64", runner.user)
        write_program(f"{tree}/sbin/init", script)
        return tree

    return make


def test_a_tree_without_an_init_is_refused(root: Runner) -> None:
    done = root.run("--boot", root.tree("arm64"))
    assert done.returncode == 125
    assert "has no init to boot" in done.stderr
    assert "hint: install one" in done.stderr
    dry = root.run("--boot", "--dry-run", root.tree("arm64"))
    assert (dry.returncode, dry.stdout) == (125, "")


@pytest.mark.parametrize("content", ["#!/nonexistent\n", "not a program"])
def test_an_init_that_cannot_be_executed(
    root: Runner, with_init: Callable[[Runner, str], HostPath], content: str
) -> None:
    done = root.run("--boot", with_init(root, content))
    assert done.returncode in (126, 127)
    assert "/sbin/init" in done.stderr


@pytest.mark.parametrize("kind", ["root", "range", "plain"])
def test_an_init_that_exits_at_once(
    runner_of: Callable[[Kind], Runner], kind: Kind, with_init: Callable[[Runner, str], HostPath]
) -> None:
    runner = runner_of(kind)
    done = runner.run("--boot", with_init(runner, "#!/bin/sh\necho short\nexit 9\n"))
    assert (done.returncode, done.stdout) == (9, "short\n"), done.stderr


def test_an_init_that_crashes(root: Runner, with_init: Callable[[Runner, str], HostPath]) -> None:
    done = root.run("--boot", with_init(root, "#!/bin/sh\nkill -SEGV $$\n"))
    assert done.returncode == 128 + signal.SIGSEGV


def test_one_that_will_not_stop_is_killed(
    root: Runner, with_init: Callable[[Runner, str], HostPath]
) -> None:
    before = descendants()
    with boot(root, with_init(root, _DEAF)) as booted:
        booted.wait_for("up")
        assert booted.stop("--kill-timeout", "1") == 128 + signal.SIGKILL
    assert left_since(before) == {}


def test_asked_twice_it_is_killed(
    root: Runner, with_init: Callable[[Runner, str], HostPath]
) -> None:
    with listening(root, with_init(root, _DEAF)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_ask_it_to_stop(
    root: Runner, with_init: Callable[[Runner, str], HostPath], number: signal.Signals
) -> None:
    with listening(root, with_init(root, _STAYS)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.readline() == "asked\n"
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("kind", ["root", "range"])
def test_sigkill_of_xbuild_leaves_nothing(
    runner_of: Callable[[Kind], Runner], kind: Kind, with_init: Callable[[Runner, str], HostPath]
) -> None:
    runner, before = runner_of(kind), descendants()
    script = "#!/bin/sh\nsleep 93 &\necho up\nwhile :; do sleep 0.2; done\n"
    with runner.spawn("--boot", with_init(runner, script)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.kill()
    assert left_since(before) == {}


def test_time_is_up(root: Runner, with_init: Callable[[Runner, str], HostPath]) -> None:
    words = ("--boot", "--timeout", "2", "--kill-timeout", "0.5", with_init(root, _DEAF))
    done = root.run(*words)
    assert done.returncode == 124
    assert "Time is up" in done.stderr


def test_an_endless_reboot_ends_when_time_is_up(
    root: Runner, with_init: Callable[[Runner, str], HostPath]
) -> None:
    tree = with_init(root, "#!/bin/sh\necho up\nbusybox reboot -f\nsleep 9\n")
    done = root.run("--boot", "--timeout", "4", "--kill-timeout", "0.5", tree)
    assert done.returncode == 124
    assert done.stdout.count("up") >= 1


def test_terminal_is_the_console(
    root: Runner, with_init: Callable[[Runner, str], HostPath]
) -> None:
    script = """\
#!/bin/sh
echo from stdout; echo from console >/dev/console
[ -t 0 ] && echo a terminal; echo $TERM; read line </dev/console; echo "got $line"
"""
    words = root.argv("--boot", with_init(root, script))
    child = pexpect.spawn(
        words[0], words[1:], env={**root.user.environment(), "TERM": "xterm"},
        cwd=root.user.home, timeout=PATIENCE_S, encoding="utf-8",
    )  # fmt: skip
    for text in ("from stdout", "from console", "a terminal", "xterm"):
        child.expect_exact(text)
    child.send("typed\r")
    child.expect_exact("got typed")
    assert status_of(child) == 0
    child.close()


@pytest.mark.parametrize("session", [(), ("setsid", "--ctty")])
def test_closed_terminal_asks_it_to_stop(
    root: Runner, with_init: Callable[[Runner, str], HostPath], session: tuple[str, ...]
) -> None:
    """Be it the controlling one, whose session is sent SIGHUP, or not."""
    tree = with_init(root, _STAYS.replace("echo asked", "echo asked >/asked"))
    primary, inside = os.openpty()
    with subprocess.Popen(
        [*session, "env", "--default-signal=HUP", *root.argv("--boot", tree)],
        stdin=inside, stdout=inside, stderr=inside,
        env=root.user.environment(), cwd=root.user.home,
    ) as process:  # fmt: skip
        os.close(inside)
        shown = b""
        while b"up" not in shown:
            shown += os.read(primary, 4096)
        os.close(primary)
        assert _wait_for_file(f"{tree}/asked") == "asked\n"
        assert process.wait(PATIENCE_S) in (0, -signal.SIGHUP)


def _wait_for_file(path: str) -> str:
    wait_for(lambda: os.path.exists(path) and os.path.getsize(path))
    return Path(path).read_text()


@pytest.mark.parametrize(
    "options", [("--user", "nobody"), ("--chdir", "/tmp"), ("--console", "pipe")]
)
def test_what_does_not_go_with_it(
    root: Runner, with_init: Callable[[Runner, str], HostPath], options: tuple[str, str]
) -> None:
    done = root.run("--boot", *options, with_init(root, _STAYS))
    assert done.returncode == 2
    assert f"{options[0]}" in done.stderr
    assert "--boot" in done.stderr


def test_ephemeral_boot_leaves_the_tree(
    root: Runner, with_init: Callable[[Runner, str], HostPath]
) -> None:
    tree = with_init(root, "#!/bin/sh\necho x >/etc/left\ncat /etc/left\n")
    before = tree_hash(tree)
    assert root.run("--boot", "--ephemeral", tree).stdout == "x\n"
    assert tree_hash(tree) == before


def test_two_boots_of_one_tree(root: Runner, with_init: Callable[[Runner, str], HostPath]) -> None:
    tree = with_init(root, _STAYS)
    with boot(root, tree) as first, boot(root, tree) as second:
        first.wait_for("up")
        second.wait_for("up")
        refused = root.run("--boot", "--exclusive", tree)
        assert refused.returncode == 125
        assert first.name in refused.stderr
        assert first.stop() == second.stop() == 0


def test_old_short_form_of_bind_is_not_taken_for_a_tree(root: Runner) -> None:
    done = root.run("-b", f"/srv:{os.sep}srv", root.tree("arm64"))
    assert done.returncode != 0
    assert "/srv:/srv" in done.stderr


def test_detached_start_of_a_missing_init_fails_where_it_is_asked_for(root: Runner) -> None:
    done = root.command("start", "--boot", root.tree("arm64"))
    assert (done.returncode, done.stdout) == (125, "")
