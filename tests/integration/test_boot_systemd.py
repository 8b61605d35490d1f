"""systemd as process 1: its default target, without a unit that failed, for root and for a user."""

from __future__ import annotations

import glob
import json
import os
import subprocess
from collections.abc import Callable, Sequence

import pytest

from tests.bootable import boot, unpack_bootable
from tests.groups import delegated_group
from tests.interpreters import Versions
from tests.runs import Runner
from xbuild.plan.limiting import read_hierarchies
from xbuild.record import HostPath

NewTree = Callable[..., HostPath]
TreeOf = Callable[[Runner, str], HostPath]


def boot_and_stop(runner: Runner, tree: HostPath, *options: str, begin: Sequence[str] = ()) -> None:
    """Have it reach its default target, look at what failed, and shut it down."""
    with boot(runner, tree, "--ephemeral", *options, begin=begin) as booted:
        booted.wait_for("login:")
        booted.wait_until_joined("systemctl", "is-system-running", "--wait")
        assert booted.inside("systemctl", "is-system-running").stdout == "running\n"
        failed = booted.inside("systemctl", "--failed", "--plain", "--no-legend")
        assert (failed.returncode, failed.stdout) == (0, "")
        assert booted.inside("systemctl", "is-active", "default.target").stdout == "active\n"
        listed = json.loads(booted.run("ps", "--json").stdout)["containers"]
        [pid] = [each["pid"] for each in listed if each["name"] == booted.name]
        assert _groups_of(pid) != []
        assert booted.stop() == 0
    assert "Halting system" in booted.log()
    assert _groups_of(pid) == []


def _groups_of(pid: int) -> list[str]:
    return glob.glob(f"/sys/fs/cgroup/**/xbuild-{pid}", recursive=True)


@pytest.fixture
def tree_of(new_tree: NewTree) -> TreeOf:
    """``tree_of(runner, "systemd-252")``: a tree of the runner's own with that init."""

    def make(runner: Runner, init: str) -> HostPath:
        place = new_tree(runner.user)
        os.rmdir(place)
        os.chown(os.path.dirname(place), runner.user.uid, runner.user.gid)
        return unpack_bootable(init, place, runner.user, runner.xbuild)

    return make


def interpreter_of(versions: Versions, version: str) -> HostPath:
    """Return that release's qemu for arm64."""
    cache = f"{versions.environment['XDG_CACHE_HOME']}/xbuild/qemu"
    [path] = glob.glob(f"{cache}/{version}*/qemu-aarch64")
    return HostPath(path)


def test_root_reaches_the_default_target(root: Runner, tree_of: TreeOf) -> None:
    boot_and_stop(root, tree_of(root, "systemd-252"))


def test_user_with_a_range_and_a_delegated_group_does(
    need_root: None, ranged: Runner, tree_of: TreeOf
) -> None:
    del need_root  # who delegates
    with delegated_group(dict(read_hierarchies().places)[""], ranged.user) as begin:
        boot_and_stop(ranged, tree_of(ranged, "systemd-252"), begin=begin)


def test_a_later_release_does_with_a_later_qemu(
    root: Runner, ranged: Runner, tree_of: TreeOf, qemu_versions: Versions
) -> None:
    """With an earlier one it cannot, and that is said."""
    tree = tree_of(root, "systemd-257")
    older = interpreter_of(qemu_versions, qemu_versions.older)
    refused = root.run("--boot", "--interpreter", older, tree)
    assert refused.returncode == 125
    assert "starts services by clone(2) with a pidfd" in refused.stderr
    assert "--interpreter aarch64@10" in refused.stderr
    words = ("--interpreter", interpreter_of(qemu_versions, qemu_versions.newer))
    boot_and_stop(root, tree, *words)
    with delegated_group(dict(read_hierarchies().places)[""], ranged.user) as begin:
        boot_and_stop(ranged, tree_of(ranged, "systemd-257"), *words, begin=begin)
    said = root.run("--boot", "--dry-run", *words, tree).stdout
    assert "the sandboxes of its units" in said


def test_user_without_a_group_is_told_what_is_lacking(ranged: Runner, new_tree: NewTree) -> None:
    tree = new_tree(ranged.user)
    subprocess.run(["cp", "-a", f"{ranged.tree('arm64')}/.", tree], check=True)
    systemd = f"{tree}/usr/lib/systemd"
    os.makedirs(systemd, exist_ok=True)
    subprocess.run(["cp", "-a", f"{tree}/usr/bin/true", f"{systemd}/systemd"], check=True)
    done = ranged.run("--boot", tree)
    assert done.returncode == 125
    assert "Cannot boot systemd: it needs a control group" in done.stderr
    assert "Delegate=yes" in done.stderr
