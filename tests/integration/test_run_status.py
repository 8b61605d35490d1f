"""What ``xbuild run`` returns: the command's own status, or one that says whose failure it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.runs import Runner, notes, write_program
from xbuild.binary.arch import arch_named
from xbuild.binary.write import tiny_program
from xbuild.record import HostPath

Fresh = Callable[..., HostPath]


@pytest.mark.parametrize("status", [0, 1, 3, 125, 126, 127, 128, 137, 255])
def test_status_is_the_command_s_own(runner: Runner, status: int) -> None:
    done = runner.run(runner.tree("arm64"), "sh", "-c", f"exit {status}")
    assert done.returncode == status
    assert "xbuild:" not in done.stderr


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "KILL", "TERM", "USR1", "SEGV", "PIPE"])
def test_signal_gives_128_plus_its_number(root: Runner, name: str) -> None:
    done = root.run(root.tree("arm64"), "sh", "-c", f"ulimit -c 0; kill -{name} $$")
    assert done.returncode == 128 + signal.Signals[f"SIG{name}"]


@pytest.mark.parametrize("architecture", ["armhf", "mipsel", "riscv64", "s390x"])
def test_signal_numbers_are_the_host_s(runner: Runner, architecture: str) -> None:
    done = runner.run(runner.tree(architecture), "sh", "-c", "kill -USR2 $$")
    assert done.returncode == 128 + signal.SIGUSR2


def test_command_not_found(runner: Runner) -> None:
    tree = runner.tree("arm64")
    for command in ("nothing-such", "/nothing/such", "./nothing-such", ""):
        done = runner.run(tree, "--", command)
        assert done.returncode == 127, command
        assert f"There is no {command or chr(39) * 2}" in done.stderr


def test_command_is_looked_up_on_the_container_s_path(root: Runner) -> None:
    tree = root.tree("arm64")
    done = root.run("--setenv", "PATH=/nowhere:/etc", tree, "true")
    assert done.returncode == 127
    assert "PATH (/nowhere:/etc)" in done.stderr
    done = root.run("--setenv", "PATH=/nowhere:/bin", tree, "true")
    assert done.returncode == 0, done.stderr
    assert root.run("--setenv", "PATH=", tree, "true").returncode == 127
    # An empty entry is the working directory: execvp(3).
    assert root.run("--setenv", "PATH=", "--chdir", "/bin", tree, "true").returncode == 0


@pytest.fixture
def odd_tree(fresh_tree: Fresh, root: Runner) -> HostPath:
    """A tree with files at /odd that are no programs."""
    tree = fresh_tree("arm64", root.user)
    odd = f"{tree}/odd"
    write_program(f"{odd}/text", "no program\n")
    write_program(f"{odd}/plain", "#!/bin/sh\n", 0o644)
    write_program(f"{odd}/empty", "")
    write_program(f"{odd}/lost-script", "#!/no/interpreter -x\n")
    whole = tiny_program(arch_named("aarch64"), b"x")
    write_program(f"{odd}/cut-off", whole[:-1])
    write_program(f"{odd}/truncated", whole[:70])
    write_program(f"{odd}/script-of-cut-off", "#!/odd/cut-off\n")
    known = tiny_program(arch_named("aarch64"), b"x")
    ia64 = (50).to_bytes(2, "little")  # elf.h: EM_IA_64, which no qemu emulates for programs
    write_program(f"{odd}/foreign", known[:18] + ia64 + known[20:])
    write_program(f"{odd}/windows", b"MZ" + bytes(510))
    os.mkdir(f"{odd}/directory")
    os.mkfifo(f"{odd}/fifo", 0o755)
    os.mknod(f"{odd}/device", 0o20755, os.makedev(1, 5))
    os.symlink("loop", f"{odd}/loop")
    os.symlink("nowhere", f"{odd}/dangling")
    return tree


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("text", 126, "neither a program nor a script"),
        ("plain", 126, "permission denied"),
        ("empty", 126, "it is an empty file"),
        ("lost-script", 126, "#!/no/interpreter -x"),
        ("cut-off", 126, "/odd/cut-off: it is cut off: it has "),
        ("truncated", 126, "cut off before the end of its program headers"),
        ("script-of-cut-off", 126, "Cannot execute /odd/cut-off: it is cut off"),
        ("foreign", 126, "a program for ia64"),
        ("windows", 126, "it is a PE program"),
        ("directory", 126, "it is a directory"),
        ("fifo", 126, "it is a FIFO"),
        ("device", 126, "it is a character device"),
        ("loop", 126, "symbolic link"),
        ("dangling", 127, "symbolic link"),
    ],
)
def test_what_is_no_program_is_named(
    root: Runner, odd_tree: HostPath, name: str, status: int, reason: str
) -> None:
    done = root.run(odd_tree, f"/odd/{name}")
    assert (done.returncode, reason in done.stderr) == (status, True), done.stderr
    assert "\nhint: " in done.stderr


def test_dynamic_program_without_its_loader(root: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", root.user)
    os.remove(f"{tree}/lib/ld-linux-aarch64.so.1")
    done = root.run(tree, "/bin/true")
    assert done.returncode == 255  # qemu's own: the kernel did its part
    (note,) = notes(done)
    assert "/lib/ld-linux-aarch64.so.1" in note


@pytest.mark.parametrize(
    "words",
    [
        ["--no-such-option", "TREE"],
        ["TREE", "--tmpfs", "relative"],
        ["--network", "bridge", "TREE"],
        ["--user", "nobody-knows", "TREE", "true"],
        ["--bind", "/etc:/../../outside", "TREE", "true"],
        [],
    ],
)
def test_wrong_usage_is_2(root: Runner, words: list[str]) -> None:
    tree = root.tree("arm64")
    done = root.run(*(tree if word == "TREE" else word for word in words))
    assert done.returncode == 2
    assert done.stderr.startswith("xbuild: ")
    assert "\nhint: " in done.stderr


def test_targets_that_are_no_tree_are_125(root: Runner) -> None:
    for target in ("/no/such/tree", "/dev/null", "/proc", "/etc/passwd"):
        done = root.run(target, "true")
        assert done.returncode == 125, target
        assert target in done.stderr
        assert "\nhint: " in done.stderr
        assert "Traceback" not in done.stderr


def test_arguments_arrive_as_they_are(runner: Runner) -> None:
    words = ["", " ", "--", "-x", "*", "$HOME", "ä", "a\nb", "'\"", "--read-only"]
    script = 'for word; do printf "<%s>" "$word"; done'
    done = runner.output(runner.tree("arm64"), "sh", "-c", script, "sh", *words)
    assert done == "".join(f"<{word}>" for word in words)


def test_long_argument_lists(root: Runner) -> None:
    tree = root.tree("arm64")
    many = [f"argument-{number}" for number in range(20000)]
    assert root.output(tree, "sh", "-c", "echo $#", "sh", *many) == "20000\n"


def test_too_long_argument_lists_are_explained(root: Runner) -> None:
    tree = root.tree("arm64")
    # The kernel takes one string of 128 KiB at most: execve(2). The host's exec of xbuild does so
    # too, hence by way of a file.
    file = f"{root.user.home}/long.env"
    with open(file, "w") as stream:
        stream.write(f"LONG={'x' * 200_000}\n")
    done = root.run("--env-file", file, tree, "true")
    assert done.returncode == 126
    assert "too long" in done.stderr


def test_signals_from_inside_to_process_one_are_not_passed_on(runner: Runner) -> None:
    """Packages of init systems send them when they are configured: the command is no init."""
    script = "trap 'echo caught' USR1 TERM; kill -USR1 1; kill -TERM 1; sleep 0.2; echo end"
    assert runner.run(runner.tree("arm64"), "sh", "-c", script).stdout == "end\n"
