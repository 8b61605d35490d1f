"""Interpreters of the request's own choice, and what is no use as one."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable

import pytest

from tests.runs import Runner, write_program
from xbuild.binary.arch import arch_named
from xbuild.binary.write import tiny_program
from xbuild.emulation.interpreters import find_interpreter
from xbuild.record import HostPath

Place = Callable[[str], HostPath]


@pytest.fixture
def place(root: Runner) -> Place:
    """A path in root's home, free to be written."""

    def path(name: str) -> HostPath:
        directory = f"{root.user.home}/interpreters"
        os.makedirs(directory, exist_ok=True)
        return HostPath(f"{directory}/{name}")

    return path


def qemu(arch: str) -> HostPath:
    return find_interpreter(arch_named(arch)).path


def test_interpreter_is_the_one_asked_for(runner: Runner) -> None:
    """A copy under any name; it is shown inside, and the plan says which file it is."""
    mine = os.path.join(runner.user.home, "my qemu")
    shutil.copy(qemu("aarch64"), mine)
    tree = runner.tree("arm64")
    try:
        assert runner.output("--interpreter", mine, tree, "uname", "-m") == "aarch64\n"
        plan = runner.output("--interpreter", mine, "--dry-run", tree, "true")
        assert f"/run/xbuild/qemu-aarch64 ({mine})" in plan
        name = os.path.basename(mine)
        assert runner.output("--interpreter", name, tree, "uname", "-m") == "aarch64\n"
    finally:
        os.unlink(mine)


def test_interpreter_that_vanished(runner: Runner) -> None:
    mine = os.path.join(runner.user.home, "vanishing-qemu")
    shutil.copy(qemu("aarch64"), mine)
    words = ("--interpreter", mine, runner.tree("arm64"), "true")
    assert runner.run(*words).returncode == 0
    os.unlink(mine)
    done = runner.run(*words)
    assert (done.returncode, f"{mine}: there is no such file" in done.stderr) == (125, True)
    assert "hint: install a static qemu-user" in done.stderr


def test_interpreter_replaced_by_another(root: Runner, place: Place) -> None:
    """What was learnt belongs to the very file: another one is tried anew."""
    mine = place("replaced")
    shutil.copy(qemu("aarch64"), mine)
    words = ("--interpreter", mine, root.tree("arm64"), "true")
    assert root.run(*words).returncode == 0
    shutil.copy(qemu("arm"), mine)
    done = root.run(*words)
    assert (done.returncode, "it emulates arm" in done.stderr) == (125, True)


def make_unsuitable(path: HostPath, kind: str) -> None:
    if kind == "script":
        write_program(path, "#!/bin/sh\nexec true\n")
    elif kind == "dynamic":
        shutil.copy("/bin/true", path)
    elif kind == "foreign":
        write_program(path, tiny_program(arch_named("s390x"), b"x"))
    elif kind == "other":
        shutil.copy(qemu("riscv64"), path)
    elif kind == "no emulator":
        write_program(path, tiny_program(arch_named("x86_64"), b"hello\n"))
    elif kind == "truncated":
        write_program(path, b"\x7fELF")
    elif kind == "not executable":
        shutil.copy(qemu("aarch64"), path)
        os.chmod(path, 0o644)
    elif kind == "fifo":
        os.mkfifo(path, 0o755)
    else:
        os.mkdir(path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("script", "it is a script"),
        ("dynamic", "it is dynamically linked"),
        ("foreign", "it is for s390x"),
        ("other", "it emulates riscv64"),
        ("no emulator", "it does not run arm64 programs"),
        ("truncated", "header is cut off"),
        ("not executable", "it is not executable"),
        ("fifo", "it is not a regular file"),
        ("directory", "it is a directory"),
    ],
)
def test_unsuitable_interpreters(root: Runner, place: Place, kind: str, reason: str) -> None:
    path = place(kind)
    make_unsuitable(path, kind)
    done = root.run("--interpreter", path, root.tree("arm64"), "true")
    assert (done.returncode, reason in done.stderr) == (125, True), done.stderr
    assert f"through {path}: " in done.stderr
    assert "hint: install a static qemu-user" in done.stderr


def test_unsuitable_by_dry_run_as_well(root: Runner, place: Place) -> None:
    path = place("dry")
    make_unsuitable(path, "other")
    done = root.run("--dry-run", "--interpreter", path, root.tree("arm64"), "true")
    assert (done.returncode, "it emulates riscv64" in done.stderr) == (125, True)


def test_cpu_is_qemu_s(runner: Runner) -> None:
    tree = runner.tree("armhf")
    assert runner.output("--cpu", "cortex-a7", tree, "uname", "-m") == "armv7l\n"
    # ARMv5 has none of the instructions that Debian's armhf is compiled to: SIGILL.
    assert runner.run("--cpu", "arm926", tree, "true").returncode == 128 + signal.SIGILL
    done = runner.run("--cpu", "no-such-processor", tree, "true")
    assert (done.returncode != 0, "no-such-processor" in done.stderr) == (True, True)


def test_32_bit_tree_through_an_interpreter_on_request(
    root: Runner, new_tree: Callable[..., HostPath]
) -> None:
    tree = new_tree(root.user)
    write_program(f"{tree}/bin/hello", tiny_program(arch_named("i386"), b"hello\n"))
    words = ("--interpreter", qemu("i386"), tree, "hello")
    assert "register   i386 " in root.output("--dry-run", *words)
    assert root.output(*words) == "hello\n"
