"""Registrations in a real kernel: each test has a binfmt_misc of its own, in a user namespace.

A test runs in a forked child, which is what enters the namespaces; this machine's own registry
is neither read nor written (``host_untouched`` asserts the latter).
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.capability import require
from xbuild.binary.arch import ARCHES, Arch, arch_named, host_arch, runs_natively32
from xbuild.binary.write import tiny_program
from xbuild.emulation.interpreters import find_interpreter
from xbuild.emulation.registry import (
    BINFMT_DIRECTORY,
    Entry,
    Missing,
    Usable,
    is_registry_enabled,
    judge,
    read_entries,
    register,
    unregister,
)
from xbuild.emulation.rules import BINPRM_BUF_SIZE, Registration, derive_rule, sample_header
from xbuild.emulation.trial import try_kernel
from xbuild.emulation.verification import Fails, Works, verify_registration
from xbuild.errors import BinfmtError, InterpreterError
from xbuild.record import HostPath, replace

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
ARCH = arch_named("aarch64" if host_arch().name != "aarch64" else "x86_64")
OTHER = arch_named("riscv64")


def in_private_registry(test: Callable[..., None]) -> Callable[..., None]:
    """Run the test in a forked child, with an empty binfmt_misc at its usual place."""

    @functools.wraps(test)
    def run_in_child(**fixtures: object) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(_succeeds(test, fixtures))
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        require("private binfmt_misc", code != 77, "the kernel refused (Linux 6.7 has it)")
        assert code == 0, "failed in the private registry; its traceback is in the output"

    return run_in_child


def _succeeds(test: Callable[..., None], fixtures: dict[str, object]) -> int:
    try:
        if not _enter_private_registry():
            return 77
        test(**fixtures)
    except BaseException:  # the child ends here, whatever happened
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


def _enter_private_registry() -> bool:
    ids = {"uid_map": f"0 {os.geteuid()} 1", "gid_map": f"0 {os.getegid()} 1"}
    if ctypes.CDLL(None).unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        return False
    for file, text in {"setgroups": "deny", **ids}.items():
        Path(f"/proc/self/{file}").write_text(text)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT_DIRECTORY]
    return subprocess.run(mount, check=False).returncode == 0


@pytest.fixture
def qemu(tmp_path: Path) -> HostPath:
    """A copy of ARCH's interpreter that a test may remove."""
    copy = tmp_path / f"qemu-{ARCH.name}"
    shutil.copy(interpreter_of(ARCH), copy)
    return HostPath(str(copy))


def interpreter_of(arch: Arch) -> HostPath:
    try:
        return find_interpreter(arch).path
    except InterpreterError as error:
        require("qemu", False, error.message)
        raise


def write_rule(rule: Registration) -> None:
    """Register past all checks, as any other program would."""
    Path(BINFMT_DIRECTORY, "register").write_bytes(rule.line())


def switch(name: str, to: str) -> None:
    Path(BINFMT_DIRECTORY, name).write_text(to)


def rule_for(arch: Arch, interpreter: HostPath, flags: str, name: str = "theirs") -> Registration:
    return derive_rule(arch, interpreter=interpreter, flags=flags, name=name)


def reason(arch: Arch = ARCH) -> str:
    verdict = verify_registration(arch)
    assert isinstance(verdict, Fails), verdict
    return verdict.reason


def names() -> list[str]:
    return [entry.name for entry in read_entries()]


@in_private_registry
def test_without_an_entry_nothing_matches(qemu: HostPath) -> None:
    assert read_entries() == ()
    assert reason() == f"no entry matches {ARCH.common_name} programs (Exec format error)"


@pytest.mark.parametrize("flags", ["", "F", "P", "PF", "O", "POF", "POCF"])
def test_an_entry_works_with_any_flags(qemu: HostPath, flags: str) -> None:
    @in_private_registry
    def test() -> None:
        write_rule(rule_for(ARCH, qemu, flags))
        assert verify_registration(ARCH) == Works()

    test()


@in_private_registry
def test_every_architecture_works_beside_all_the_others() -> None:
    arches = [a for a in ARCHES if a not in (host_arch(), runs_natively32(host_arch()))]
    for arch in arches:
        register(derive_rule(arch, interpreter=interpreter_of(arch), flags="POF"))
    assert {a.name: verify_registration(a) for a in arches} == {a.name: Works() for a in arches}
    assert verify_registration(host_arch()) == Works()


@in_private_registry
def test_an_entry_with_f_outlives_its_interpreter(qemu: HostPath) -> None:
    write_rule(rule_for(ARCH, qemu, "F"))
    Path(qemu).unlink()
    assert verify_registration(ARCH) == Works()


@in_private_registry
def test_an_entry_without_f_goes_stale(qemu: HostPath) -> None:
    write_rule(rule_for(ARCH, qemu, "P"))
    Path(qemu).unlink()
    assert isinstance(judge(ARCH, read_entries()), Usable)
    assert reason() == f"the entry theirs names {qemu}, which is not there"


@in_private_registry
def test_an_interpreter_that_lost_its_mode_is_found(qemu: HostPath) -> None:
    write_rule(rule_for(ARCH, qemu, "P"))
    Path(qemu).chmod(0o644)
    assert reason() == f"the entry theirs names {qemu}: Permission denied"


@in_private_registry
def test_a_disabled_entry_is_found(qemu: HostPath) -> None:
    write_rule(rule_for(ARCH, qemu, "F"))
    switch("theirs", "0")
    assert reason() == "the entry theirs is disabled"
    switch("theirs", "1")
    assert verify_registration(ARCH) == Works()


@in_private_registry
def test_a_disabled_registry_is_found(qemu: HostPath) -> None:
    write_rule(rule_for(ARCH, qemu, "F"))
    switch("status", "0")
    assert not is_registry_enabled()
    assert reason() == "the entry theirs is idle, since binfmt_misc as a whole is disabled"


@in_private_registry
def test_an_entry_that_shadows_a_good_one_is_found(qemu: HostPath) -> None:
    write_rule(rule_for(ARCH, qemu, "F", name="good"))
    write_rule(rule_for(ARCH, interpreter_of(OTHER), "F", name="bad"))
    assert f"the entry bad gives it to {interpreter_of(OTHER)}: it exited with status" in reason()
    switch("bad", "-1")
    assert verify_registration(ARCH) == Works()


@pytest.mark.parametrize("interpreter", ["/bin/true", "/bin/cat", "/bin/sh"])
def test_an_interpreter_that_is_none_is_found(qemu: HostPath, interpreter: str) -> None:
    @in_private_registry
    def test() -> None:
        write_rule(rule_for(ARCH, HostPath(interpreter), ""))
        assert f"the entry theirs gives it to {interpreter}" in reason()

    test()


@in_private_registry
def test_an_interpreter_that_needs_itself_is_found(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(tiny_program(ARCH, b"x"))
    program.chmod(0o755)
    write_rule(rule_for(ARCH, HostPath(str(program)), "F"))
    assert reason() == f"the entry theirs matches its own interpreter, {program}"


@in_private_registry
def test_the_newest_entry_is_listed_first_and_wins(qemu: HostPath) -> None:
    for name in ("b", "c", "a"):
        write_rule(rule_for(ARCH, qemu, "F", name=name))
    switch("c", "0")
    switch("c", "1")
    assert names() == ["a", "c", "b"]
    verdict = judge(ARCH, read_entries())
    assert isinstance(verdict, Usable)
    assert verdict.entry.name == "a"


@in_private_registry
def test_registering_again_takes_the_place_of_the_old_entry(qemu: HostPath) -> None:
    other = rule_for(ARCH, qemu, "F", name="qemu-theirs")
    write_rule(other)
    ours = rule_for(ARCH, interpreter_of(OTHER), "F", name="xbuild-x")
    register(ours)
    assert isinstance(verify_registration(ARCH), Fails)
    register(replace(ours, interpreter=qemu, flags="POF"))
    assert names() == ["xbuild-x", "qemu-theirs"]
    assert verify_registration(ARCH) == Works()
    unregister("xbuild-x")
    assert names() == ["qemu-theirs"]


@in_private_registry
def test_unregistering_what_is_not_there_is_an_error() -> None:
    with pytest.raises(BinfmtError, match="there is none"):
        unregister("xbuild-arm")


@in_private_registry
def test_others_entries_are_left_alone(qemu: HostPath) -> None:
    write_rule(rule_for(ARCH, qemu, "F"))
    before = read_entries()
    with pytest.raises(BinfmtError, match="left alone"):
        unregister("theirs")
    with pytest.raises(BinfmtError, match="left alone"):
        register(rule_for(ARCH, qemu, "F"))
    assert read_entries() == before


@in_private_registry
def test_a_rule_that_catches_the_host_is_refused(qemu: HostPath) -> None:
    header = sample_header(host_arch())
    for size in (4, 20):
        caught = Registration("xbuild-x", header[:size], b"\xff" * size, 0, qemu, "F")
        with pytest.raises(BinfmtError, match=host_arch().name):
            register(caught)
    assert read_entries() == ()
    assert verify_registration(host_arch()) == Works()


@in_private_registry
def test_a_rule_that_catches_the_hosts_32_bit_programs_is_refused(qemu: HostPath) -> None:
    native = runs_natively32(host_arch())
    try:
        is_native = native is not None and try_kernel(native).is_as_expected
    except OSError:
        is_native = False
    rule = rule_for(native, qemu, "F", name="xbuild-x") if native else None
    if rule is not None and is_native:
        with pytest.raises(BinfmtError, match="matches"):
            register(rule)
        assert read_entries() == ()


@in_private_registry
def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = HostPath(str(tmp_path / "nonexistent"))
    with pytest.raises(BinfmtError, match=f"{missing} cannot be executed"):
        register(rule_for(ARCH, missing, "F", name="xbuild-x"))
    assert judge(ARCH, read_entries()) == Missing()


@in_private_registry
def test_a_registry_mounted_read_only_is_said_to_be_so(qemu: HostPath) -> None:
    subprocess.run(["mount", "-o", "remount,bind,ro", BINFMT_DIRECTORY], check=True)
    with pytest.raises(BinfmtError, match="Read-only") as caught:
        register(rule_for(ARCH, qemu, "F", name="xbuild-x"))
    assert "on the host itself" in caught.value.hint


@in_private_registry
def test_a_registry_that_is_not_mounted_is_said_to_be_so(qemu: HostPath) -> None:
    subprocess.run(["umount", BINFMT_DIRECTORY], check=True)
    assert "no binfmt_misc is mounted" in reason()
    with pytest.raises(BinfmtError, match="No binfmt_misc is mounted") as caught:
        register(rule_for(ARCH, qemu, "F", name="xbuild-x"))
    assert "mount -t binfmt_misc" in caught.value.hint


@pytest.mark.parametrize(("flags", "runs"), [("POF", True), ("PF", False)])
def test_only_o_runs_programs_that_may_not_be_read(
    tmp_path: Path, qemu: HostPath, flags: str, runs: bool
) -> None:
    program = tmp_path / "program"
    program.write_bytes(tiny_program(ARCH, b"ran\n"))
    program.chmod(0o311)
    without_capabilities = ["setpriv", "--bounding-set=-all", "--securebits=+noroot"]

    @in_private_registry
    def test() -> None:
        write_rule(rule_for(ARCH, qemu, flags))
        argv = [*without_capabilities, str(program)]
        done = subprocess.run(argv, capture_output=True, check=False)
        assert (done.stdout == b"ran\n") is runs, done

    test()


@in_private_registry
def test_a_name_that_debians_qemu_takes_for_flag_p_works_with_it(tmp_path: Path) -> None:
    link = tmp_path / f"{ARCH.name}-binfmt-P"
    link.symlink_to(interpreter_of(ARCH))
    write_rule(rule_for(ARCH, HostPath(str(link)), "PF"))
    assert verify_registration(ARCH) == Works()


words = st.text(
    st.characters(codec="utf-8", exclude_characters=":/\n\0"), min_size=1, max_size=40
).filter(lambda name: name not in (".", "..", "register", "status"))


@st.composite
def registrations(draw: st.DrawFn) -> Registration:
    """Rules for the interpreter /NAME, without F, that match no program of this machine."""
    size = draw(st.integers(5, 60))
    data = st.binary(min_size=size - 1, max_size=size - 1)
    return Registration(
        draw(words),
        b"\x01" + draw(data),
        b"\xff" + draw(data),
        draw(st.sampled_from((0, BINPRM_BUF_SIZE - size))),
        HostPath("/" + draw(words)),
        "".join(draw(st.permutations(sorted(draw(st.sets(st.sampled_from("POC"))))))),
    )


@in_private_registry
def test_the_kernel_shows_what_was_registered() -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(registrations())
    def test(rule: Registration) -> None:
        switch("status", "-1")  # removes all entries
        write_rule(rule)
        implied = {"O"} if "C" in rule.flags else set()
        shown = frozenset(rule.flags) | implied
        expected = Entry(
            rule.name, True, rule.interpreter, shown, rule.offset, rule.magic, rule.mask
        )
        assert read_entries() == (expected,)

    test()
