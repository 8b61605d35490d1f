"""Real trees of several architectures run, for root and for ordinary users alike."""

from __future__ import annotations

import pytest

from tests.runs import Runner
from tests.trees import FOREIGN_ARCHITECTURES

UNAME = {
    "arm64": "aarch64",
    "armhf": "armv7l",
    "mipsel": "mips",
    "riscv64": "riscv64",
    "s390x": "s390x",
}

everywhere = pytest.mark.parametrize("architecture", FOREIGN_ARCHITECTURES)


@everywhere
def test_uname_names_the_architecture(runner: Runner, architecture: str) -> None:
    assert runner.output(runner.tree(architecture), "uname", "-m") == f"{UNAME[architecture]}\n"


@everywhere
def test_shell_pipeline_works(runner: Runner, architecture: str) -> None:
    script = "printf 'b\\na\\nc\\n' | sort | tee /tmp/sorted | head -n 2; wc -l </tmp/sorted"
    assert runner.shell(architecture, script).split() == ["a", "b", "3"]


@everywhere
def test_command_is_no_process_of_the_host(runner: Runner, architecture: str) -> None:
    """Process 1 is xbuild's init; the command is its child and sees nobody else."""
    script = "cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; echo $$ $PPID"
    name, processes, pids = runner.shell(architecture, script).splitlines()
    assert (name, int(processes) <= 4, pids) == ("xbuild-init", True, "2 1")


@everywhere
def test_login_shell_is_the_default_command(runner: Runner, architecture: str) -> None:
    done = runner.run(runner.tree(architecture), input="shopt -q login_shell; echo $? $0 $PWD\n")
    assert done.stdout == "0 /bin/bash /root\n", done.stderr


@everywhere
def test_files_belong_to_root_inside(runner: Runner, architecture: str) -> None:
    answer = runner.shell(architecture, "stat -c '%u:%g' / /bin/true /tmp /dev/pts /run; id -u")
    assert answer.split() == ["0:0"] * 5 + ["0"]
