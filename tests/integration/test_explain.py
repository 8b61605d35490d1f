"""Failures explained: limits met for real, and the failures that are nobody's but the command's."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import pytest

from tests.capability import require
from tests.conftest import OpenTerminal
from tests.patience import WORK_S
from tests.provocations import PROVOKED, PROVOKED_HANGS, REMEDIES, Provocation
from tests.runs import Runner, write_program
from xbuild.binary.arch import arch_named
from xbuild.binary.write import tiny_program
from xbuild.diagnosis.limits import limit_named
from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath
from xbuild.source.debian import (
    BASE_PACKAGES,
    default_suites,
    fetch_debian_archive,
    unpack_tree,
)

MORE = {
    "arm64": (
        *("apt", "bubblewrap", "gnupg", "gpg-agent", "iproute2", "perl-base", "strace", "sudo"),
        "util-linux",
    ),
    "armhf": ("gcc", "libc6-dev", "perl-base"),
}
KNOWN = "xbuild: known limit: "


@pytest.fixture(scope="module")
def trees(reachable_directory: HostPath) -> Iterator[Callable[[str], HostPath]]:
    """``trees("arm64")``: a tree of root's with the programs that meet limits, for this module."""
    made: dict[str, HostPath] = {}
    place = tempfile.mkdtemp(prefix="limits-", dir=reachable_directory)
    os.chmod(place, 0o755)

    def tree(architecture: str) -> HostPath:
        if architecture not in made:
            packages = BASE_PACKAGES + MORE[architecture]
            suites = default_suites(architecture)
            try:
                archive = fetch_debian_archive(
                    architecture, suites, packages, progress=lambda _text, _fraction: None
                )
            except MirrorUnavailable as error:
                require("mirror", False, error.message)
                raise AssertionError("require does not return") from error
            made[architecture] = unpack_tree(archive, HostPath(f"{place}/{architecture}"))
        return made[architecture]

    yield tree
    subprocess.run(["rm", "-rf", "--one-file-system", place], check=True)


def provoke(
    runner: Runner, tree: HostPath, provocation: Provocation, *options: str
) -> subprocess.CompletedProcess[str]:
    words = (*options, *provocation.options, tree, "--", provocation.shell, "-c")
    return runner.run(*words, provocation.script, timeout_s=WORK_S)


def explained(done: subprocess.CompletedProcess[str]) -> list[str]:
    lines = done.stderr.splitlines()
    return [line.removeprefix(KNOWN) for line in lines if line.startswith(KNOWN)]


@pytest.mark.parametrize("provocation", PROVOKED, ids=lambda p: p.limit)
def test_limit_is_met_and_explained(
    root: Runner, trees: Callable[[str], HostPath], provocation: Provocation
) -> None:
    done = provoke(root, trees(provocation.architecture), provocation, "--explain")
    limit = limit_named(provocation.limit)
    assert done.returncode not in (0, 125), done.stderr
    assert explained(done)[:1] == [limit.cause], done.stderr
    seen = next(line[7:] for line in done.stderr.splitlines() if line.startswith(" seen: "))
    assert seen in done.stdout + done.stderr.split(KNOWN)[0]
    assert f" reported: {limit.issue}" in done.stderr
    assert " try: " in done.stderr


@pytest.mark.parametrize("remedy", REMEDIES, ids=lambda p: p.limit)
def test_what_it_says_to_try_works(
    root: Runner, trees: Callable[[str], HostPath], remedy: Provocation
) -> None:
    done = provoke(root, trees(remedy.architecture), remedy, "--explain")
    assert (done.returncode, explained(done)) == (0, []), done.stderr


def test_processor_of_a_board_can_be_shown(root: Runner) -> None:
    board = f"{root.user.home}/cpuinfo"
    with open(board, "w", encoding="ascii") as file:
        file.write("Hardware\t: BCM2835\n")
    words = ("--bind-ro", f"{board}:/proc/cpuinfo", root.tree("arm64"), "cat", "/proc/cpuinfo")
    assert root.output(*words) == "Hardware\t: BCM2835\n"


def test_single_id_is_explained(single: Runner) -> None:
    words = ("--explain", "-x", single.tree("arm64"), "chown", "1000", "/etc/hostname", "/root")
    assert explained(single.run(*words)) == [limit_named("one-id").cause]


def test_address_space_of_the_caller_is_explained(
    root: Runner, trees: Callable[[str], HostPath]
) -> None:
    words = root.argv("--explain", trees("armhf"), "true")
    done = root.user.run(["prlimit", "--as=3000000000", *words])
    assert explained(done) == [limit_named("address-space").cause], done.stderr


def test_program_of_another_architecture_is_explained(
    root: Runner, trees: Callable[[str], HostPath]
) -> None:
    program = f"{root.user.home}/other"
    write_program(program, tiny_program(arch_named("s390x"), b"x"))
    words = ("--explain", "--bind", f"{program}:/tmp/other", trees("arm64"), "bash", "-c")
    done = root.run(*words, "/tmp/other; exit $?")
    assert done.returncode == 126
    assert explained(done) == [limit_named("exec-format").cause], done.stderr


ORDINARY = {
    "exit 1": "exit 1",
    "false": "false",
    "test": "test -e /nonexistent",
    "grep finds nothing": "echo text | grep -q other",
    "no such file": "cat /nonexistent",
    "not executable": "/etc/passwd",
    "compile error": "echo 'int main(void) { return foo; }' | gcc -x c -o /tmp/a -",
    "link error": "echo 'int f(void); int main(void) { return f(); }' | gcc -x c -o /tmp/a -",
    "assertion": "echo '#include <assert.h>\nint main(void) { assert(0); }' >/tmp/a.c;"
    " gcc -o /tmp/a /tmp/a.c && /tmp/a",
    "terminated": "kill -TERM $$",
    "interrupted": "kill -INT $$",
    "too large a number": "dd if=/dev/zero of=/dev/null bs=3900M count=1",
    "a log of failures, searched": "grep -rn semop /tmp/log; exit 1",
    "a log of failures, compared": "echo other >/tmp/b; diff /tmp/log /tmp/b",
}
LOG = r"""
cat >/tmp/log <<END
qemu: uncaught target signal 11 (Segmentation fault) - core dumped
semop(1): encountered an error: Function not implemented
strace: ptrace(PTRACE_TRACEME, ...): Function not implemented
END
"""


@pytest.mark.parametrize("what", ORDINARY)
def test_ordinary_failure_is_not_explained(
    root: Runner, trees: Callable[[str], HostPath], what: str
) -> None:
    script = LOG + ORDINARY[what]
    done = root.run("--explain", "-x", trees("armhf"), "--", "sh", "-c", script)
    assert done.returncode not in (0, 125)
    assert explained(done) == [], done.stderr


def test_success_that_quotes_failures_is_not_explained(
    root: Runner, trees: Callable[[str], HostPath]
) -> None:
    done = root.run("--explain", "-x", trees("armhf"), "sh", "-c", LOG + "cat /tmp/log >&2")
    assert (done.returncode, explained(done)) == (0, [])
    assert "uncaught target signal 11" in done.stderr


def test_signal_is_explained_without_being_asked(root: Runner) -> None:
    """The output is the caller's own then, and nobody else saw it."""
    done = root.run(root.tree("arm64"), "sh", "-c", "kill -SEGV $$")
    assert done.returncode == 139
    assert explained(done) == [limit_named("crash").cause]
    assert " seen: it was ended by SIGSEGV (status 139)" in done.stderr


def test_output_is_not_looked_at_without_being_asked(
    root: Runner, trees: Callable[[str], HostPath]
) -> None:
    script = 'test "$(readlink /proc/$$/fd/1)" = "pipe:[$INODE]"; strace true'
    read, write = os.pipe()
    inode = os.fstat(write).st_ino
    words = ("--setenv", f"INODE={inode}", trees("arm64"), "sh", "-ec", script)
    done = root.run(*words, capture_output=False, stdout=write, stderr=subprocess.PIPE)
    os.close(read)
    os.close(write)
    assert done.returncode == 1
    assert "PTRACE_TRACEME" in done.stderr
    assert explained(done) == []


def test_terminal_has_its_output_explained_without_being_asked(
    root: Runner, trees: Callable[[str], HostPath], open_terminal: OpenTerminal
) -> None:
    session = open_terminal(root.argv(trees("arm64"), "strace", "true"))
    session.expect("known limit: qemu-user has no ptrace")
    session.wait()
    assert session.exitstatus == 1


@pytest.mark.parametrize("shell", [[], ["bash"], ["/bin/sh"]])
def test_shell_that_one_leaves_is_not_explained(
    root: Runner, trees: Callable[[str], HostPath], open_terminal: OpenTerminal, shell: list[str]
) -> None:
    session = open_terminal(root.argv(trees("arm64"), *shell))
    session.sendline("strace true; exit 3")
    session.expect("PTRACE_TRACEME: Function not implemented")
    session.wait()
    assert session.exitstatus == 3
    assert "known limit" not in session.read()


def test_explanations_are_told_to_a_ci_service(
    root: Runner, trees: Callable[[str], HostPath]
) -> None:
    cause = limit_named("ptrace").cause
    done = root.run("--ci=plain", trees("arm64"), "strace", "true")
    assert f"note: known limit: {cause}; seen: strace: " in done.stderr
    done = root.run("--ci=github", trees("arm64"), "strace", "true")
    (annotation,) = (line for line in done.stdout.splitlines() if line.startswith("::error "))
    assert f"hint: known limit: {cause}; seen: strace: " in annotation


@pytest.mark.parametrize("provocation", PROVOKED_HANGS, ids=lambda p: p.limit)
def test_hang_is_explained(
    root: Runner, trees: Callable[[str], HostPath], provocation: Provocation
) -> None:
    done = provoke(root, trees("arm64"), provocation, "--idle-timeout", "2")
    assert done.returncode == 124
    assert "nothing has moved for 2 s" in done.stderr
    assert (
        f"hint: known limit: {limit_named(provocation.limit).cause}; seen: process " in done.stderr
    )


def test_processes_of_a_hang_are_named_with_their_states(runner: Runner) -> None:
    words = ("--idle-timeout", "2", runner.tree("arm64"), "sh", "-c", "sleep 61 & wait")
    done = runner.run(*words)
    assert done.returncode == 124
    hints = [line for line in done.stderr.splitlines() if line.startswith("hint: process ")]
    assert any("by qemu-aarch64: sh -c 'sleep 61 & wait': sleeps" in hint for hint in hints)
    assert any("by qemu-aarch64: sleep 61: sleeps" in hint for hint in hints)
    assert "known limit" not in done.stderr


def test_a_processor_that_qemu_lacks_is_told_without_seeing_its_words(root: Runner) -> None:
    done = root.run("--cpu", "nonsuch", root.tree("arm64"), "true")
    assert done.returncode == 1
    assert f"{KNOWN}{limit_named('cpu-unknown').cause}" in done.stderr
    assert " seen: qemu-aarch64" in done.stderr
    other = root.run("--cpu", "max", root.tree("arm64"), "false")
    assert (other.returncode, KNOWN in other.stderr) == (1, False)
