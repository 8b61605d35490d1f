"""However a run in an image through FUSE ends, no process, mount or lock of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import OpenTerminal
from tests.disks import BUSYBOX, assert_free, running
from tests.integration.test_image_run_fuse import assert_sound, image, place, ranged, user_of
from tests.patience import PATIENCE_S
from tests.runs import Runner
from tests.terminals import status_of
from xbuild.record import HostPath

__all__ = ["image", "place", "ranged", "user_of"]  # fixtures

WAIT = "echo lasting >/root/file; echo there; while :; do cat /bin/busybox >/root/copy; done"
Process = subprocess.Popen[str]


def _kill_launcher(process: Process) -> None:
    os.kill(process.pid, signal.SIGKILL)


def _kill_supervisor(process: Process) -> None:
    os.kill(_children(process.pid)[0], signal.SIGKILL)


def _kill_process_one(process: Process) -> None:
    os.kill(_process_one(process), signal.SIGKILL)


def _kill_command(process: Process) -> None:
    os.kill(_children(_process_one(process))[0], signal.SIGSEGV)


def _interrupt(process: Process) -> None:
    os.kill(process.pid, signal.SIGINT)


def _terminate(process: Process) -> None:
    os.kill(process.pid, signal.SIGTERM)


def _terminate_server(process: Process) -> None:
    os.kill(_server(process), signal.SIGTERM)


def _stop_server_and_kill_launcher(process: Process) -> None:
    server = _server(process)
    os.kill(server, signal.SIGSTOP)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(PATIENCE_S)
    os.kill(server, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def _named(process: Process) -> dict[str, int]:
    supervisor = _children(process.pid)[0]
    return {Path(f"/proc/{pid}/comm").read_text().strip(): pid for pid in _children(supervisor)}


def _process_one(process: Process) -> int:
    return _named(process)["xbuild-init"]


def _server(process: Process) -> int:
    return _named(process)["fuse2fs"]


@pytest.mark.parametrize(
    "end",
    [
        _kill_launcher,
        _kill_supervisor,
        _kill_process_one,
        _kill_command,
        _interrupt,
        _terminate,
        _terminate_server,
        _stop_server_and_kill_launcher,
    ],
)
def test_nothing_is_left_and_what_was_written_is_sound(
    ranged: Runner, image: HostPath, end: Callable[[Process], None]
) -> None:
    with running(lambda: ranged.spawn(image, "sh", "-c", WAIT)) as process:
        end(process)
        assert process.wait(PATIENCE_S) != 0
    assert_free(image)
    assert_sound(image)
    assert ranged.output("--read-only", image, "cat", "/root/file") == "lasting\n"


@pytest.mark.parametrize("option", ["--read-only", "--hostname=x"])
def test_server_that_is_killed_ends_the_run_and_is_named(
    ranged: Runner, image: HostPath, option: str
) -> None:
    script = "echo there; while :; do sleep 1; done"
    start = lambda: ranged.spawn(option, image, "sh", "-c", script, stderr=subprocess.PIPE)  # noqa: E731
    with running(start) as process:
        os.kill(_server(process), signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 125
        assert process.stderr is not None
        said = process.stderr.read()
    assert f"fuse2fs, which served partition 1 of {image}, was ended by SIGKILL" in said
    assert ("--fsck" in said.partition("hint:")[2]) == (option != "--read-only")
    assert_free(image)
    assert ranged.run("--fsck", image, "true").returncode == 0
    assert_sound(image)


def test_programs_inside_get_an_error_from_a_dead_server(ranged: Runner, image: HostPath) -> None:
    shell = "/run/busybox"  # not of the image: it would end by SIGBUS for want of its own pages
    script = f"echo there; read line; {shell} cat /etc/fstab || echo failed"
    argv = ["--bind-ro", f"{BUSYBOX}:{shell}", "-x", image, shell, "sh", "-c", script]
    with running(lambda: ranged.spawn(*argv, stdin=subprocess.PIPE)) as process:
        os.kill(_children(process.pid)[0], signal.SIGSTOP)  # the supervisor, who would end it
        os.kill(_server(process), signal.SIGKILL)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "failed\n"
        os.kill(_children(process.pid)[0], signal.SIGCONT)
        assert process.wait(PATIENCE_S) == 125
    assert_free(image)


def test_nothing_is_left_of_a_run_that_cannot_start(ranged: Runner, image: HostPath) -> None:
    assert ranged.run(image, "/no/such/program").returncode == 127
    assert_free(image)
    assert_sound(image)


def test_background_processes_end_with_the_command(ranged: Runner, image: HostPath) -> None:
    ranged.output(image, "sh", "-c", "(while :; do echo x >>/root/more; done) & sleep 0.2")
    assert_free(image)
    assert_sound(image)


def test_keyboard_interrupt_on_a_terminal(
    ranged: Runner, image: HostPath, open_terminal: OpenTerminal
) -> None:
    argv = ranged.argv(image, "sh", "-c", "echo there; sleep 60")
    session = open_terminal(argv, user=ranged.user)
    session.expect_exact("there")
    session.sendcontrol("c")
    status_of(session)
    assert_free(image)
    assert_sound(image)


def test_killed_while_starting(ranged: Runner, image: HostPath) -> None:
    for delay_s in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5):
        process = ranged.spawn(image, "sleep", "60")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay_s)
        process.kill()
        process.communicate()
        assert_free(image)
        assert_sound(image)


def test_server_has_no_way_to_the_host(ranged: Runner, image: HostPath) -> None:
    assert ranged.user is not None
    Path(ranged.user.home, ".profile").touch()  # where it would be, were it left where it began
    with running(lambda: ranged.spawn(image, "sh", "-c", WAIT)) as process:
        server = _server(process)
        status = Path(f"/proc/{server}/status").read_text()
        assert "NoNewPrivs:\t1\n" in status
        assert os.readlink(f"/proc/{server}/ns/user") != os.readlink("/proc/self/ns/user")
        assert os.listdir(f"/proc/{server}/root") == os.listdir(f"/proc/{server}/cwd") == []


def test_mount_is_seen_by_nobody_else(ranged: Runner, image: HostPath) -> None:
    """Not even by the program that makes it, which has an empty root directory."""
    with running(lambda: ranged.spawn(image, "sh", "-c", WAIT)) as process:
        server = _server(process)
        for pid in ("self", process.pid, _children(process.pid)[0], server):
            assert "fuse.ext" not in Path(f"/proc/{pid}/mountinfo").read_text()
        assert os.listdir(f"/proc/{server}/root") == []
        opened = {os.readlink(f"/proc/{server}/fd/{fd}") for fd in os.listdir(f"/proc/{server}/fd")}
        assert {path for path in opened if path.startswith("/")} <= {
            image, "/dev/null", "/dev/fuse", "/"
        }  # fmt: skip
