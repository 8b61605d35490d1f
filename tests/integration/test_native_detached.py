"""Native tools in containers that outlive their starter, and in what joins one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import pytest

from tests.patience import wait_for
from tests.runs import Runner
from tests.toolsets import NATIVE, NativeAs, NativeRunner

ARCH = "/usr/bin/arch"
FOREIGN = "aarch64"
SHOW = ("sh", "-c", "arch; uname -m; env -i /usr/bin/arch")

pytestmark = pytest.mark.usefixtures("host_untouched")


@contextlib.contextmanager
def running(native: NativeRunner, command: str, *options: str) -> Iterator[str]:
    """Start or hold a container on the shared tree; yield its name."""
    runner, name = native.runner, f"native-{os.getpid()}-{time.monotonic_ns()}"
    environment = runner.user.environment(XDG_CACHE_HOME=native.cache)
    words = ("sh", "-c", "arch; sleep 300") if command == "start" else ()
    place = (command, "--name", name, *options, runner.tree("arm64"), *words)
    done = runner.command(*place, env=environment)
    assert (done.returncode, done.stdout) == (0, f"{name}\n"), done.stderr
    try:
        yield name
    finally:
        runner.command("stop", "--kill-timeout", "0.1", name)
        if runner.kind == "root" and os.path.exists(f"/var/log/xbuild/{name}.log"):
            os.unlink(f"/var/log/xbuild/{name}.log")
            with contextlib.suppress(OSError):
                os.rmdir("/var/log/xbuild")


@pytest.mark.parametrize("command", ["start", "hold"])
def test_command_that_joins_has_the_container_s_native_tools(
    runner: Runner, native_as: NativeAs, command: str
) -> None:
    native = native_as(runner)
    native.prepare(runner.tree("arm64"), ARCH)
    with running(native, command, "--native") as name:
        done = runner.command("exec", name, *SHOW)
        assert done.stdout.split() == [NATIVE, FOREIGN, NATIVE], done.stderr


def test_first_command_of_a_started_container_is_native(root: Runner, native: NativeRunner) -> None:
    native.prepare(root.tree("arm64"), ARCH)
    with running(native, "start", "--native") as name:
        wait_for(lambda: root.command("logs", name).stdout == f"{NATIVE}\n")


def test_command_that_joins_one_without_has_none(root: Runner, native: NativeRunner) -> None:
    native.prepare(root.tree("arm64"), ARCH)
    with running(native, "hold") as name:
        environment = root.user.environment(XDG_CACHE_HOME=native.cache)
        done = root.command("exec", name, *SHOW, env=environment)
        assert done.stdout.split() == [FOREIGN] * 3


@pytest.mark.parametrize("command", ["start", "hold"])
def test_container_is_not_begun_without_a_set(
    root: Runner, native: NativeRunner, command: str
) -> None:
    environment = root.user.environment(XDG_CACHE_HOME=native.cache)
    place = (command, "--native", "--name", "never", root.tree("arm64"), "true")
    done = root.command(*(place[:-1] if command == "hold" else place), env=environment)
    assert (done.returncode, done.stdout) == (125, "")
    assert f"xbuild native prepare {root.tree('arm64')}" in done.stderr
    assert "never" not in root.command("ps", "-q").stdout
