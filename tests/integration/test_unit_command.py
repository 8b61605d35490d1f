"""Units for a machine's start: understood by who reads them, and their command line works."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.capability import require
from tests.runs import Runner
from tests.users import User
from xbuild.record import HostPath

NewPlace = Callable[[User], HostPath]
VALUE = 'x=50% $HOME "quoted" it\'s'
SCRIPT = 'echo "$WORD"; echo $((6*7))'


def unit(root: Runner, *options: str) -> str:
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    words = ("unit", *options, "--name", name, "-E", f"WORD={VALUE}", root.tree("arm64"))
    done = root.command(*words, "--", "sh", "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_systemd_finds_no_fault(root: Runner, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    require("systemd-analyze", program is not None, "systemd-analyze is missing (package systemd)")
    assert program is not None
    path = tmp_path / "board.service"
    path.write_text(unit(root))
    checked = subprocess.run(
        [program, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    assert "board.service" not in checked.stderr


def test_openrc_script_has_the_command_line(root: Runner, tmp_path: Path) -> None:
    """As openrc-run does: the shell reads the script, and start-stop-daemon evaluates the words."""
    script = tmp_path / "board"
    script.write_text(
        unit(root, "--openrc") + '\neval "set -- $command_args"; exec $command "$@"\n'
    )
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{VALUE}\n42\n"), done.stderr


def test_unit_of_a_running_container(root: Runner) -> None:
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    words = (
        "--name",
        name,
        "--network",
        "none",
        root.tree("arm64"),
        "sh",
        "-c",
        "echo up; sleep 60",
    )
    with root.spawn(*words) as process:
        assert process.stdout is not None
        process.stdout.readline()
        done = root.command("unit", name)
        process.kill()
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("ExecStart=")]
    argv = shlex.split(line.removeprefix("ExecStart="))
    assert argv[1:] == ["run", *words]


def test_unit_of_a_run_that_is_waited_for(root: Runner) -> None:
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    script = "echo up; sleep 60"
    with root.spawn("--certify", "--name", name, root.tree("arm64"), "sh", "-c", script) as process:
        assert process.stdout is not None
        process.stdout.readline()
        done = root.command("unit", name)
        process.kill()
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Container {name} was started with --certify" in done.stderr


def test_a_service_needs_a_command(root: Runner) -> None:
    done = root.command("unit", root.tree("arm64"))
    assert (done.returncode, "needs a command" in done.stderr) == (2, True)


def test_a_held_container_has_no_command(root: Runner) -> None:
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    assert root.command("hold", "--name", name, root.tree("arm64")).returncode == 0
    try:
        done = root.command("unit", name)
    finally:
        root.command("stop", "--kill-timeout", "0.1", name)
    assert (done.returncode, f"{name} is held" in done.stderr) == (2, True)
    assert "hint: xbuild unit" in done.stderr


def test_what_a_tree_is_called_is_no_command(root: Runner, new_place: NewPlace) -> None:
    """Nor several mounts, nor lines of its own."""
    place = new_place(root.user)
    tree = f'{place}/a $(echo done) "b\\c'
    os.mkdir(tree)
    unit = root.command("unit", tree, "true").stdout
    (mounts,) = [x for x in unit.splitlines() if x.startswith("RequiresMountsFor=")]
    assert shlex.split(mounts.removeprefix("RequiresMountsFor=")) == [tree]
    script = root.command("unit", "--openrc", tree, "true").stdout
    done = subprocess.run(
        ["sh", "-c", f'{script}\nprintf %s "$description"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith(f" on {tree}")
    os.mkdir(f"{place}/a\nb")
    done = root.command("unit", f"{place}/a\nb", "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert "a\\nb: it has control characters" in done.stderr


def test_a_tree_that_is_not_there(root: Runner) -> None:
    without = root.command("unit", "/no/such/tree")
    assert (without.returncode, without.stdout) == (2, "")
    assert "A service on /no/such/tree needs a command" in without.stderr
    done = root.command("unit", "/no/such/tree", "--", "true")
    assert done.returncode == 0
    assert "note: /no/such/tree is not there now" in done.stderr
    odd = root.command("unit", "/dev/null", "--", "true")
    assert (odd.returncode, odd.stdout) == (125, "")
    assert "/dev/null is a character device, not a directory" in odd.stderr
    dry = root.command("unit", "--dry-run", root.tree("arm64"), "--", "true")
    assert (dry.returncode, "hint: xbuild run --dry-run" in dry.stderr) == (2, True)
