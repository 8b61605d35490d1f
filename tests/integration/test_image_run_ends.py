"""However a run in an image ends, no loop device, mount or lock of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import OpenTerminal
from tests.disks import assert_free, one_filesystem, running
from tests.images import MIB
from tests.patience import PATIENCE_S
from tests.runs import Runner
from tests.terminals import status_of
from xbuild.record import HostPath
from xbuild.sandbox.loop import loops_of

WAIT = "echo lasting >/root/file; echo there; sleep 60"


@pytest.fixture
def image(tmp_path: Path) -> HostPath:
    return one_filesystem(tmp_path / "one.img", "ext4")


def _kill_launcher(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)


def _kill_process_one(process: subprocess.Popen[str]) -> None:
    os.kill(_child(process.pid), signal.SIGKILL)


def _interrupt(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGINT)


def _terminate(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGTERM)


def _kill_command(process: subprocess.Popen[str]) -> None:
    os.kill(_child(_child(process.pid)), signal.SIGSEGV)


def _child(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return int(file.read().split()[0])


@pytest.mark.parametrize(
    "end", [_kill_launcher, _kill_process_one, _interrupt, _terminate, _kill_command]
)
def test_nothing_is_left(
    root: Runner, image: HostPath, end: Callable[[subprocess.Popen[str]], None]
) -> None:
    with running(lambda: root.spawn(image, "sh", "-c", WAIT)) as process:
        assert loops_of(image)
        end(process)
        assert process.wait(PATIENCE_S) != 0
    assert_free(image)
    check = ["e2fsck", "-fn", f"{image}?offset={MIB}"]
    assert subprocess.run(check, capture_output=True).returncode == 0
    assert root.output("--read-only", image, "cat", "/root/file") == "lasting\n"


def test_nothing_is_left_at_the_end(root: Runner, image: HostPath) -> None:
    assert root.run(image, "sh", "-c", "exit 7").returncode == 7
    assert_free(image)


def test_background_processes_end_with_the_command(root: Runner, image: HostPath) -> None:
    root.output(image, "sh", "-c", "(while :; do echo x >>/root/more; done) & sleep 0.2")
    assert_free(image)
    check = ["e2fsck", "-fn", f"{image}?offset={MIB}"]
    assert subprocess.run(check, capture_output=True).returncode == 0


def test_nothing_is_left_of_a_run_that_cannot_start(root: Runner, image: HostPath) -> None:
    assert root.run(image, "/no/such/program").returncode == 127
    assert_free(image)


def test_keyboard_interrupt_on_a_terminal(
    root: Runner, image: HostPath, open_terminal: OpenTerminal
) -> None:
    session = open_terminal(root.argv(image, "sh", "-c", "echo there; sleep 60"), user=root.user)
    session.expect_exact("there")
    session.sendcontrol("c")
    status_of(session)
    assert_free(image)


def test_killed_while_starting(root: Runner, image: HostPath) -> None:
    for delay_s in (0.03, 0.06, 0.1, 0.14, 0.18, 0.22, 0.26, 0.3):
        process = root.spawn(image, "sleep", "60")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay_s)
        process.kill()
        process.communicate()
        assert_free(image)


def test_loop_device_has_autoclear(root: Runner, image: HostPath) -> None:
    with running(lambda: root.spawn(image, "sh", "-c", WAIT)):
        for loop in loops_of(image):
            name = os.path.basename(loop)
            assert Path(f"/sys/block/{name}/loop/autoclear").read_text().strip() == "1"


def test_mount_is_seen_by_nobody_else(root: Runner, image: HostPath) -> None:
    with running(lambda: root.spawn(image, "sh", "-c", WAIT)):
        mounts = Path("/proc/self/mountinfo").read_text()
        assert not any(f" {loop} " in mounts for loop in loops_of(image))
