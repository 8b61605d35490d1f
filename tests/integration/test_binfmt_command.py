"""``xbuild binfmt`` as people run it, each time with a binfmt_misc and a binfmt.d of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Protocol

import pytest

from tests.capability import require
from tests.patience import PATIENCE_S, WORK_S
from tests.users import User
from xbuild.binary.arch import arch_named, host_arch
from xbuild.emulation.interpreters import find_interpreter
from xbuild.errors import InterpreterError

ARCH = "arm" if host_arch().name != "arm" else "aarch64"
OTHER = "riscv64"
_ENTER = """
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || exit 77
mount -t tmpfs tmpfs /etc/binfmt.d || exit 78
registry=/proc/sys/fs/binfmt_misc
"""


class Run(Protocol):
    """Run a shell script in which ``$xbuild`` is the command, as root of new namespaces."""

    def __call__(self, script: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(params=["caller", "ordinary user"])
def run(request: pytest.FixtureRequest, xbuild_for: Callable[[User | None], list[str]]) -> Run:
    for arch in (ARCH, OTHER):
        try:
            find_interpreter(arch_named(arch))
        except InterpreterError as error:
            require("qemu", False, error.message)
    require("binfmt.d", os.path.isdir("/etc/binfmt.d"), "there is no /etc/binfmt.d")
    is_caller = request.param == "caller"
    user: User | None = None if is_caller else request.getfixturevalue("ordinary_user")
    # Not by the launcher's own first line: it may name a Python that only root can reach.
    command = " ".join(xbuild_for(user) if user is None else ("python3 -IS", *xbuild_for(user)))
    cache = request.getfixturevalue("tmp_path") if user is None else f"{user.home}/.cache"

    def run_script(script: str) -> subprocess.CompletedProcess[str]:
        whole = f"export XDG_CACHE_HOME={cache}\nxbuild={command!r}\n{_ENTER}{script}"
        argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", whole]
        if user is not None:
            argv = user.argv(argv)
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=WORK_S)
        require("private binfmt_misc", done.returncode != 77, done.stderr)
        return done

    return run_script


def test_an_entry_is_registered_listed_verified_and_removed(run: Run) -> None:
    done = run(
        f"""
        set -e
        $xbuild binfmt register {ARCH}
        $xbuild binfmt verify {ARCH}
        $xbuild binfmt list
        $xbuild binfmt unregister {ARCH}
        ls $registry
        """
    )
    assert done.returncode == 0, done.stderr
    registered, verified, heading, listed, removed, *left = done.stdout.splitlines()
    assert registered.startswith(f"registered xbuild-{ARCH}: ")
    assert verified.split() == [ARCH, "works"]
    assert heading.split() == ["ENTRY", "ARCH", "FLAGS", "INTERPRETER", "VERDICT"]
    assert listed.split()[::2] == [f"xbuild-{ARCH}", "POF", "works"]
    assert removed == f"removed xbuild-{ARCH}: entry"
    assert left == ["register", "status"]


def test_the_list_as_json_holds_all_that_is_known(run: Run) -> None:
    done = run(f"$xbuild binfmt register {ARCH} >&2; $xbuild binfmt list --json")
    listing = json.loads(done.stdout)
    assert (listing["schema"], listing["enabled"]) == ("xbuild.binfmt/1", True)
    (entry,) = listing["entries"]
    assert entry["name"] == f"xbuild-{ARCH}"
    assert entry["flags"] == ["P", "O", "F"]
    assert len(entry["magic"]) == len(entry["mask"]) == 40
    assert entry["persistent"] is False
    assert entry["architectures"] == [{"name": ARCH, "verdict": "works", "reason": None}]


def test_verify_exits_with_1_when_something_does_not_run(run: Run) -> None:
    done = run(f"$xbuild binfmt verify {host_arch().name} {OTHER} --json; echo $? >&2")
    verified = json.loads(done.stdout)
    assert verified["schema"] == "xbuild.binfmt-verify/1"
    good, bad = verified["architectures"]
    assert good == {"name": host_arch().name, "verdict": "works", "reason": None}
    assert bad["verdict"] == "fails"
    assert "no entry matches" in bad["reason"]
    assert done.stderr == "1\n"


def test_verify_without_names_tries_what_is_registered(run: Run) -> None:
    done = run(
        f"""
        $xbuild binfmt verify; echo $?
        $xbuild binfmt register {ARCH} {OTHER} >&2
        echo 0 > $registry/xbuild-{OTHER}
        $xbuild binfmt verify; echo $?
        """
    )
    nothing, *found, status = done.stdout.splitlines()
    assert (nothing, status) == ("0", "1")
    assert [line.split()[:2] for line in found] == [[ARCH, "works"], [OTHER, "fails:"]]


def test_entries_of_others_stay_and_are_judged(run: Run) -> None:
    interpreter = find_interpreter(arch_named(ARCH)).path
    done = run(
        rf"""
        $xbuild binfmt register {ARCH} >&2
        rule=$(sed -n 's/^magic //p' $registry/xbuild-{ARCH} | sed 's/../\\x&/g')
        $xbuild binfmt unregister {ARCH} >&2
        printf '%s' ":qemu-{ARCH}:M::$rule::{interpreter}:" > $registry/register
        printf '%s' ":script:E::xyz::/bin/sh:" > $registry/register
        $xbuild binfmt register --all >&2
        $xbuild binfmt register {ARCH} >&2
        $xbuild binfmt list
        $xbuild binfmt unregister --all >&2
        ls $registry
        """
    )
    *listed, first, second, third, fourth = done.stdout.splitlines()
    rows = {line.split()[0]: line for line in listed}
    assert "the newer entry xbuild-" in rows[f"qemu-{ARCH}"]
    assert "untested" in rows["script"]
    assert rows[f"xbuild-{ARCH}"].endswith("works")
    assert [first, second, third, fourth] == [f"qemu-{ARCH}", "register", "script", "status"]


def test_persist_writes_a_file_that_persist_removes(run: Run) -> None:
    file = f"/etc/binfmt.d/xbuild-{ARCH}.conf"
    done = run(
        f"""
        $xbuild binfmt register {ARCH} --persist >/dev/null
        tail -n 1 {file}
        $xbuild binfmt unregister {ARCH} >/dev/null
        tail -n 1 {file} > $registry/register; ls $registry
        $xbuild binfmt unregister --all --persist
        ls /etc/binfmt.d
        """
    )
    line, *entries, removed = done.stdout.splitlines()
    assert line.startswith(f":xbuild-{ARCH}:M:0:\\x7f\\x45\\x4c\\x46")
    assert f"xbuild-{ARCH}" in entries
    assert removed == f"removed xbuild-{ARCH}: entry and file in /etc/binfmt.d"
    assert "comes back at boot" in done.stderr


def test_a_file_without_an_entry_is_removed_too(run: Run) -> None:
    done = run(
        f"""
        $xbuild binfmt register {ARCH} --persist >/dev/null
        echo -1 > $registry/xbuild-{ARCH}
        $xbuild binfmt unregister {ARCH} --persist
        """
    )
    assert done.stdout == f"removed xbuild-{ARCH}: file in /etc/binfmt.d\n"


def test_the_hosts_own_architecture_is_refused(run: Run) -> None:
    done = run(f"$xbuild binfmt register {host_arch().name}; echo $?; ls $registry")
    assert done.stdout == "125\nregister\nstatus\n"
    assert "which this host runs itself" in done.stderr


def test_an_interpreter_for_something_else_is_refused(run: Run) -> None:
    wrong = find_interpreter(arch_named(OTHER)).path
    done = run(f"$xbuild binfmt register {ARCH} --interpreter {wrong}; echo $?; ls $registry")
    assert done.stdout == "125\nregister\nstatus\n"
    assert f"it emulates {OTHER}" in done.stderr
    assert "hint: install" in done.stderr


def test_credentials_are_given_only_to_what_root_alone_can_write(run: Run) -> None:
    interpreter = find_interpreter(arch_named(ARCH)).path
    done = run(
        f"""
        $xbuild binfmt list >/dev/null
        copy=$(mktemp -d)/qemu; cp {interpreter} $copy; chmod 0775 $copy
        $xbuild binfmt register {ARCH} --credential --interpreter $copy; echo $?
        chmod 0755 $copy; chmod 0777 ${{copy%/qemu}}
        $xbuild binfmt register {ARCH} --credential --interpreter $copy; echo $?
        chmod 0755 ${{copy%/qemu}}
        $xbuild binfmt register {ARCH} --credential --interpreter $copy >/dev/null; echo $?
        grep flags $registry/xbuild-{ARCH}
        rm -r ${{copy%/qemu}}
        """
    )
    assert done.stdout == "125\n125\n0\nflags: POCF\n"
    assert done.stderr.count("others than root can write") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("register", "--all"),
        ("register arm --all", "--all"),
        ("register --all --interpreter /bin/true", "single ARCH"),
        ("register arn", "did you mean arm"),
        ("unregister", "--all"),
        ("verify no-such-thing", "Unknown architecture"),
    ],
)
def test_wrong_usage_exits_with_2(
    xbuild_for: Callable[[User | None], list[str]], arguments: str, says: str
) -> None:
    argv = [*xbuild_for(None), "binfmt", *arguments.split()]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert says in done.stderr


def test_removing_what_is_not_there_is_an_error(run: Run) -> None:
    done = run(f"$xbuild binfmt unregister {ARCH}; echo $?; $xbuild binfmt unregister --all")
    assert "there is none" in done.stderr
    assert done.stdout == "125\n"


def test_a_registry_that_is_not_mounted_is_said_to_be_so(run: Run) -> None:
    done = run(f"umount $registry; $xbuild binfmt list; echo $?; $xbuild binfmt register {ARCH}")
    assert done.stdout == "125\n"
    assert done.stderr.count("No binfmt_misc is mounted") == 2
    assert "hint: as root: mount -t binfmt_misc" in done.stderr
