"""``--binfmt host``: the host's registrations, in a user namespace that has its own registry."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable

import pytest

from tests.capability import require
from tests.runs import Runner
from tests.trees import tree_hash
from xbuild.binary.arch import arch_named
from xbuild.diagnosis.limits import limit_named
from xbuild.emulation.interpreters import find_interpreter
from xbuild.emulation.rules import derive_rule
from xbuild.record import HostPath

REGISTRY = "/proc/sys/fs/binfmt_misc"
ENTRY = f"{REGISTRY}/qemu-custom"
_ENTER = f"mount -t binfmt_misc binfmt_misc {REGISTRY} || exit 77\nset -e\n"
_NO_REGISTRY = 77

Script = Callable[..., subprocess.CompletedProcess[str]]


def line_for(flags: str, interpreter: str, arch: str = "aarch64") -> str:
    """Return shell words that print a registration, each byte as an escape."""
    rule = derive_rule(
        arch_named(arch), interpreter=HostPath(interpreter), flags=flags, name="qemu-custom"
    )
    # The kernel reads \\x escapes itself: magic and mask stay readable, the rest is text.
    return "printf '%b' '" + "".join(f"\\0{byte:03o}" for byte in rule.line()) + "'"


def register(flags: str, interpreter: str, arch: str = "aarch64") -> str:
    return f"{line_for(flags, interpreter, arch)} >{REGISTRY}/register\n"


@pytest.fixture
def in_namespace(runner: Runner) -> Script:
    """Run a script as root of a new user namespace with a registry; ``$xbuild`` is the command."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        words = " ".join(runner.xbuild)
        whole = f"xbuild='{words}'\ntree='{runner.tree('arm64')}'\n{_ENTER}{script}"
        done = runner.user.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", whole]
        )
        require("private binfmt_misc", done.returncode != _NO_REGISTRY, done.stderr)
        return done

    return run


def qemu(arch: str = "aarch64") -> str:
    return find_interpreter(arch_named(arch)).path


def test_entry_with_f_is_used_as_it_is(in_namespace: Script) -> None:
    script = """
        $xbuild run --binfmt host "$tree" uname -m
        $xbuild run --binfmt host "$tree" ls /run/xbuild
        $xbuild run --binfmt host --dry-run "$tree" uname -m | grep -c '^ .*qemu' || :
        """
    done = in_namespace(register("F", qemu()) + script)
    assert done.stdout.split() == ["aarch64", "hosts", "0"], done.stderr


@pytest.mark.parametrize("option", ["--read-only", "--ephemeral"])
def test_entry_without_f_gets_its_interpreter_shown(
    in_namespace: Script, runner: Runner, option: str
) -> None:
    before = tree_hash(runner.tree("arm64"))
    script = f"""
        $xbuild run --binfmt host {option} "$tree" sh -c 'uname -m; ls {qemu()}'
        """
    done = in_namespace(register("", qemu()) + script)
    assert done.stdout.split() == ["aarch64", qemu()], done.stderr
    assert tree_hash(runner.tree("arm64")) == before


def test_entry_without_f_at_an_odd_place(in_namespace: Script, runner: Runner) -> None:
    place = f"{runner.user.home}/odd qemu"
    script = f"""
        cp {qemu()} '{place}'
        {register("P", place)}
        $xbuild run --binfmt host "$tree" uname -m
        rm '{place}'
        """
    done = in_namespace(script)
    assert done.stdout == "aarch64\n", done.stderr


def test_entry_whose_file_is_gone_works_with_f(in_namespace: Script, runner: Runner) -> None:
    place = f"{runner.user.home}/gone-qemu"
    script = f"""
        cp {qemu()} {place}
        {register("F", place)}
        rm {place}
        $xbuild run --binfmt host "$tree" uname -m
        """
    assert in_namespace(script).stdout == "aarch64\n"


def test_disabled_entry_and_the_way_out(in_namespace: Script) -> None:
    script = f"""
        echo 0 >{ENTRY}
        $xbuild run --binfmt host "$tree" true || echo $?
        $xbuild run "$tree" uname -m
        """
    done = in_namespace(register("F", qemu()) + script)
    assert done.stdout.split() == ["125", "aarch64"], done.stderr
    assert "entry qemu-custom for arm64 is disabled" in done.stderr
    assert f"echo 1 >{ENTRY}" in done.stderr


def test_registry_switched_off(in_namespace: Script) -> None:
    script = f'echo 0 >{REGISTRY}/status; $xbuild run --binfmt host "$tree" true'
    done = in_namespace(register("F", qemu()) + script)
    assert (done.returncode, "as a whole is disabled" in done.stderr) == (125, True), done.stderr


def test_entry_for_another_architecture_s_qemu(in_namespace: Script) -> None:
    done = in_namespace(register("F", qemu("arm")) + '$xbuild run --binfmt host "$tree" true')
    assert (done.returncode, "does not run arm64 programs" in done.stderr) == (125, True)
    assert "xbuild binfmt register arm64" in done.stderr


def test_no_entry(in_namespace: Script) -> None:
    done = in_namespace('$xbuild run --binfmt host "$tree" true')
    assert (done.returncode, "has no entry for arm64" in done.stderr) == (125, True)
    assert "xbuild binfmt register arm64" in done.stderr


def test_xbuild_s_own_host_entry(in_namespace: Script) -> None:
    script = """
        $xbuild binfmt register aarch64 >/dev/null
        $xbuild run --binfmt host "$tree" uname -m
        """
    assert in_namespace(script).stdout == "aarch64\n"


def test_private_registry_hides_the_host_s(in_namespace: Script) -> None:
    """A wrong entry of the host's has no say in a run with a registry of its own."""
    script = f"""
        $xbuild run "$tree" uname -m
        cat {ENTRY} | head -n 1
        """
    done = in_namespace(register("F", qemu("arm")) + script)
    assert done.stdout.split() == ["aarch64", "enabled"], done.stderr


CRASH = "sh -c 'kill -SEGV $$'; exit 1"


def test_a_failure_under_an_entry_of_the_host_is_explained(in_namespace: Script) -> None:
    script = f"""
        $xbuild run --explain --binfmt host "$tree" sh -c {shlex.quote(CRASH)} || echo $?
        """
    done = in_namespace(register("F", qemu()) + script)
    assert done.stdout == "1\n", done.stderr
    assert f"xbuild: known limit: {limit_named('crash').cause}" in done.stderr
    assert "not known: the emulator's version" not in done.stderr


def test_of_an_interpreter_that_is_gone_the_version_is_said_to_be_unknown(
    in_namespace: Script,
) -> None:
    script = f"""
        rm /tmp/qemu
        $xbuild run --explain --binfmt host "$tree" sh -c {shlex.quote(CRASH)} || echo $?
        """
    before = f"mount -t tmpfs none /tmp\ncp {qemu()} /tmp/qemu\n"
    done = in_namespace(before + register("F", "/tmp/qemu") + script)
    assert done.stdout == "1\n", done.stderr
    assert f"xbuild: known limit: {limit_named('crash').cause}" in done.stderr
    assert " not known: the emulator's version" in done.stderr


def test_another_interpreter_than_the_entry_s_is_refused(in_namespace: Script) -> None:
    script = f"""
        $xbuild run --binfmt host --interpreter {qemu()} "$tree" true || echo $?
        """
    done = in_namespace(register("F", qemu()) + script)
    assert done.stdout == "125\n"
    assert "is for a registry of the container's own, and --binfmt host is not" in done.stderr


def test_the_plan_names_the_entry(in_namespace: Script) -> None:
    script = '$xbuild run --binfmt host --dry-run "$tree" true'
    done = in_namespace(register("F", qemu()) + script)
    said = f"by the host's registry: aarch64 programs, entry qemu-custom: {qemu()} (F)"
    assert said in done.stdout.splitlines()


@pytest.mark.parametrize("flags", ["F", "FP"])
def test_a_hang_under_an_entry_of_the_host_is_named_and_known(
    in_namespace: Script, flags: str
) -> None:
    """With the flag P the emulator has a word more, which is none of the program's."""
    script = """
        $xbuild run --binfmt host --idle-timeout 2 --kill-timeout 1 "$tree" sleep 1234 || echo $?
        """
    done = in_namespace(register(flags, qemu()) + script)
    assert done.stdout == "124\n", done.stderr
    assert "sleep 1234: sleeps" in done.stderr
    assert " by qemu-aarch64" in done.stderr


def test_the_ladder_has_no_other_versions_for_an_entry_of_the_host(in_namespace: Script) -> None:
    script = '$xbuild run --binfmt host --retry "$tree" false || echo $?'
    done = in_namespace(register("F", qemu()) + script)
    assert done.stdout == "1\n", done.stderr
    assert "note: --retry: other versions of qemu take a registry of the container's own" in (
        done.stderr
    )
    assert "on one processor" in done.stderr
