"""Busybox trees: one static program under many names, absolute links, a root that tries things."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.runs import Runner
from tests.trees import tree_hash
from xbuild.record import HostPath

BusyboxTree = Callable[..., HostPath]


@pytest.mark.parametrize("architecture", ["armhf", "s390x", "mipsel"])
def test_applets_see_their_names(
    runner: Runner, busybox_tree: BusyboxTree, architecture: str
) -> None:
    """The flag P: argv[0] says which applet is meant."""
    tree = busybox_tree(architecture, runner.user)
    before = tree_hash(tree)
    script = "echo $0; uname -s; id -u | cat; busybox true; env false || echo failed; pwd"
    shown = runner.output(tree, "sh", "-c", script).split()
    assert shown == ["sh", "Linux", "0", "failed", "/root"]
    assert tree_hash(tree) == before


def test_login_shell_of_a_busybox_tree(runner: Runner, busybox_tree: BusyboxTree) -> None:
    tree = busybox_tree("armhf", runner.user)
    assert runner.output(tree, input="echo $0 $SHELL\n") == "/bin/sh /bin/sh\n"


def test_root_inside_cannot_undo_what_is_read_only(
    runner: Runner, busybox_tree: BusyboxTree
) -> None:
    tree = busybox_tree("armhf", runner.user)
    place = os.path.join(runner.user.home, "kept")
    with open(place, "w") as file:
        file.write("kept\n")
    os.chown(place, runner.user.uid, runner.user.gid)
    script = """
        for place in /mnt/kept /proc/sys /sys /etc/hosts; do
            mount -o remount,rw $place && echo remounted $place
            mount -o remount,bind,rw $place && echo remounted $place
            umount $place && echo unmounted $place
        done
        echo x >/mnt/kept && echo written
        echo x >/proc/sys/kernel/hostname && echo written
        mount -o bind /mnt /run && echo x >/run/kept && echo written
        """
    for words in ((), ("--read-only",), ("--ephemeral",)):
        options = (*words, "--bind-ro", f"{place}:/mnt/kept", tree, "sh", "-c", f"({script}) 2>&-")
        assert runner.run(*options).stdout == "", words
    with open(place) as file:
        assert file.read() == "kept\n"
    os.unlink(place)


def test_mounts_made_inside_stay_inside(runner: Runner, busybox_tree: BusyboxTree) -> None:
    tree = busybox_tree("armhf", runner.user)
    script = "mount -t tmpfs tmpfs /mnt && touch /mnt/file && ls /mnt && umount /mnt && ls /mnt"
    assert runner.output(tree, "sh", "-c", script) == "file\n"


def test_old_interpreters_are_gone_with_the_registry(
    root: Runner, busybox_tree: BusyboxTree
) -> None:
    """Root inside may spoil its own registry, which nobody else has."""
    tree = busybox_tree("armhf", root.user)
    script = "mount -t binfmt_misc none /mnt && echo 0 >/mnt/status; /bin/busybox echo ran"
    root.run(tree, "sh", "-c", f"({script}) 2>&-")
    assert root.output(tree, "echo", "ran") == "ran\n"
