"""Certificates of real changes: mounts, loop devices, binfmt entries, processes of any namespace.

Whatever would change the host is done in a mount namespace that ends with the test.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.certificates import differences
from tests.installation import CHECKOUT
from tests.patience import wait_for
from tests.users import User
from xbuild.record import HostPath
from xbuild.sandbox.certificate import certify, witness
from xbuild.sandbox.holders import name_of

CHANGE_AND_CERTIFY = """
import subprocess, sys
sys.path.insert(0, {checkout!r})
from xbuild.sandbox import certificate
from xbuild.sandbox.certificate import certify, witness
certificate._SETTLE_S = 0.2
tree = sys.argv[1]
before = witness(tree)
subprocess.run(["sh", "-ec", sys.argv[2], "sh", tree], check=True)
found = certify(before, tree)
print(found.is_clean, found.text)
"""

Require = Callable[[str, bool, str], None]
Running = Callable[[list[str]], AbstractContextManager[int]]


@pytest.fixture
def tree(reachable_directory: HostPath) -> Iterator[HostPath]:
    with tempfile.TemporaryDirectory(dir=reachable_directory) as directory:
        os.chmod(directory, 0o755)
        yield HostPath(directory)


@pytest.fixture
def certified_change(require: Require, tree: HostPath) -> Callable[[str], str]:
    """Certify what a shell script ($1: the tree) changes, in a mount namespace of its own."""
    require("root", os.geteuid() == 0, "mounts in a private namespace")

    def certify_change(script: str) -> str:
        program = CHANGE_AND_CERTIFY.format(checkout=CHECKOUT)
        inside = [sys.executable, "-c", program, tree, script]
        command = ["unshare", "--mount", "--propagation", "private", *inside]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return certify_change


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xbuild.sandbox.certificate._SETTLE_S", 0.2)


@pytest.fixture
def running() -> Running:
    """Run a command, which says an empty line when it is ready, and kill it; gives its pid."""

    @contextmanager
    def run(command: list[str]) -> Iterator[int]:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == b"\n"
                wait_for(lambda: name_of(process.pid) != "sh")  # it becomes another program
                yield process.pid
            finally:
                process.kill()

    return run


def test_left_mount_is_named(certified_change: Callable[[str], str], tree: HostPath) -> None:
    text = certified_change("mount -t tmpfs none $1")
    assert text.startswith(f"False NOT untouched: 1 mount appeared: {tree} (tmpfs); ")


def test_mount_below_the_tree_is_left_and_in_the_way(
    certified_change: Callable[[str], str], tree: HostPath
) -> None:
    text = certified_change("mkdir $1/boot; mount -t tmpfs none $1/boot")
    assert f"{tree} is free to unmount (umount -R: {tree}/boot below it) or flash" in text


def test_remounted_file_system_is_named(certified_change: Callable[[str], str]) -> None:
    text = certified_change("mount -o remount,bind,ro /sys")
    assert "1 mount appeared: /sys (sysfs); 1 mount disappeared: /sys (sysfs); " in text


def test_mounted_and_unmounted_again_is_clean(
    certified_change: Callable[[str], str], own_places: tuple[str, ...]
) -> None:
    _, _, text = certified_change("mount -t tmpfs none $1; umount $1").partition(" ")
    assert differences(text, own_places) == []


def test_changed_propagation_is_a_difference(certified_change: Callable[[str], str]) -> None:
    assert certified_change("mount --make-shared /proc").startswith("False NOT untouched")


def test_loop_device_is_named_with_its_file(
    require: Require, tree: HostPath, own_places: tuple[str, ...]
) -> None:
    image = f"{tree}/disk.img"
    with open(image, "wb") as file:
        file.truncate(1 << 20)
    before = witness(tree)
    attach = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True)
    require("loop", attach.returncode == 0, attach.stderr)
    device = attach.stdout.strip()
    try:
        found = certify(before, tree)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    name = os.path.basename(device)
    assert f"loop device {name} appeared ({image})" in found.text
    assert found.text.endswith(f"{tree} is held by {name}")
    assert differences(certify(before, tree).text, own_places) == []


def test_binfmt_entry_of_this_user_namespace_is_named(require: Require, tree: HostPath) -> None:
    registry = "/proc/sys/fs/binfmt_misc"
    probe = ["unshare", "-Ur", "--mount", "mount", "-t", "binfmt_misc", "none", registry]
    refused = subprocess.run(probe, capture_output=True, text=True, check=False)
    require("private_binfmt", refused.returncode == 0, refused.stderr)
    rule = ":xbuild-certified:E::xbuild-certified::/bin/true:"
    script = f'mount -t binfmt_misc none {registry}; exec "$@"'
    program = CHANGE_AND_CERTIFY.format(checkout=CHECKOUT)
    change = f"echo '{rule}' > {registry}/register"
    inside = ["sh", "-ec", script, "sh", sys.executable, "-c", program, tree, change]
    command = ["unshare", "-Ur", "--mount", *inside]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("False NOT untouched: ")
    assert "binfmt entry xbuild-certified appeared; " in answer.stdout


def test_process_with_an_open_file_is_named(tree: HostPath, running: Running) -> None:
    with open(f"{tree}/file", "w"):
        pass
    before = witness(tree)
    with running(["sh", "-c", f"exec 3<{tree}/file; echo; exec sleep 60"]) as pid:
        found = certify(before, tree)
    assert found.text.endswith(f"{tree} is held by sleep ({pid})")


def test_process_with_a_deleted_mapped_file_is_named(tree: HostPath, running: Running) -> None:
    program = (
        "import mmap, os, sys, time\n"
        f"fd = os.open('{tree}/file', os.O_RDWR | os.O_CREAT)\n"
        "os.truncate(fd, 4096); held = mmap.mmap(fd, 4096); os.close(fd)\n"
        f"os.unlink('{tree}/file'); print(flush=True); time.sleep(60)\n"
    )
    before = witness(tree)
    with running([sys.executable, "-c", program]) as pid:
        found = certify(before, tree)
    assert f"({pid})" in found.text.rpartition("is held by")[2]


def test_other_namespace_that_has_the_tree_mounted_is_named(
    require: Require, tree: HostPath, running: Running
) -> None:
    require("root", os.geteuid() == 0, "mounts in a private namespace")
    os.mkdir(f"{tree}/below")
    before = witness(tree)
    script = f"mount --bind {tree}/below /mnt; cd /; echo; exec sleep 60"
    with running(["unshare", "--mount", "sh", "-ec", script]) as pid:
        found = certify(before, tree)
    assert found.text.endswith(f"{tree} is held by sleep ({pid})")


def test_other_namespace_without_the_tree_is_no_holder(
    require: Require, tree: HostPath, running: Running
) -> None:
    require("root", os.geteuid() == 0, "mounts in a private namespace")
    with running(["unshare", "--mount", "sh", "-c", "cd /; echo; exec sleep 60"]) as pid:
        text = certify(witness(tree), tree).text
    assert f"({pid})" not in text


def test_copy_that_follows_this_namespace_is_no_holder(require: Require, tree: HostPath) -> None:
    require("root", os.geteuid() == 0, "mounts in a private namespace")
    script = (
        f"mount -t tmpfs none {tree}; mount --make-shared {tree};"
        " unshare --mount --propagation slave sh -c 'cd /; echo $$; exec sleep 60' >$1/pid &"
        " while ! test -s $1/pid; do sleep 0.01; done;"
        f' "{sys.executable}" -c "$2" $1; kill $(cat $1/pid)'
    )
    program = (
        f"import sys; sys.path.insert(0, {CHECKOUT!r})\n"
        "from xbuild.sandbox.holders import find_holders\n"
        "print(find_holders(sys.argv[1]).found)"
    )
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", tree, program]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == "()\n"


def test_ordinary_user_is_told_what_was_not_looked_into(
    require: Require,
    plain_user: User,
    xbuild_for: Callable[[User | None], list[str]],
    tree: HostPath,
    own_places: tuple[str, ...],
) -> None:
    require("root", os.geteuid() == 0, "processes of another user's")
    library = os.path.join(os.path.dirname(xbuild_for(plain_user)[0]), "library")
    program = (
        f"import sys; sys.path.insert(0, {library!r})\n"
        "from xbuild.sandbox.certificate import certify, witness\n"
        "print(certify(witness(sys.argv[1]), sys.argv[1]).text)"
    )
    answer = plain_user.run(["/usr/bin/python3", "-c", program, tree])
    assert differences(answer.stdout, own_places) == [], answer.stderr
    assert answer.stdout.endswith("not looked into: other users')\n")
