"""What is known of a host: its mounts, what they hide, what can be idmapped."""

from __future__ import annotations

import os

import pytest

from tests.unit.plan.records import PROC_MOUNT, ROOT_MOUNT, host, user_host
from xbuild.plan.host import Host, Mount, is_within
from xbuild.record import HostPath


def mount(point: str, filesystem: str, number: int, parent: int = 20) -> Mount:
    return Mount(HostPath(point), filesystem, number, parent)


MNT = mount("/mnt", "tmpfs", 30)
BELOW = mount("/mnt/a/b", "xfs", 31, 30)
OVER = mount("/mnt/a", "btrfs", 32, 30)
AGAIN = mount("/mnt", "nfs4", 33, 30)


@pytest.mark.parametrize(
    ("mounts", "below"),
    [
        ((MNT, BELOW), ["/mnt/a/b"]),
        ((MNT, BELOW, OVER), ["/mnt/a"]),
        ((MNT, OVER, mount("/mnt/a/b", "xfs", 34, 32)), ["/mnt/a", "/mnt/a/b"]),
        ((MNT, BELOW, AGAIN), []),
        ((MNT, BELOW, AGAIN, mount("/mnt/a", "xfs", 35, 33)), ["/mnt/a"]),
        ((MNT, BELOW, mount("/", "overlay", 36, 20)), []),
        ((MNT, mount("/mnt2/x", "xfs", 37)), []),
    ],
)
def test_hidden_mounts_are_passed_over(mounts: tuple[Mount, ...], below: list[str]) -> None:
    facts = host(mounts=(ROOT_MOUNT, PROC_MOUNT, *mounts))
    assert [each.point for each in facts.mounts_below(HostPath("/mnt"))] == below


@pytest.mark.parametrize(
    ("path", "filesystem"),
    [
        ("/srv", "ext4"),
        ("/mnt", "nfs4"),
        ("/mnt/a/b/c", "nfs4"),
        ("/mntx", "ext4"),
        ("/proc/self", "proc"),
        ("/", "ext4"),
    ],
)
def test_filesystem_is_that_of_the_topmost_mount(path: str, filesystem: str) -> None:
    facts = host(mounts=(ROOT_MOUNT, PROC_MOUNT, MNT, BELOW, AGAIN))
    assert facts.filesystem_of(HostPath(path)) == filesystem


@pytest.mark.parametrize(
    ("filesystem", "kernel", "can"),
    [
        ("ext4", (5, 12), True),
        ("ext4", (5, 11), False),
        ("tmpfs", (6, 2), False),
        ("tmpfs", (6, 3), True),
        ("overlay", (6, 18), False),
        ("ramfs", (6, 18), False),
        ("nfs4", (6, 18), False),
    ],
)
def test_what_can_be_idmapped(filesystem: str, kernel: tuple[int, int], can: bool) -> None:
    facts = host(kernel=kernel, mounts=(ROOT_MOUNT, mount("/mnt", filesystem, 30)))
    assert facts.can_idmap(HostPath("/mnt/tree")) == can


def test_an_idmapped_mount_cannot_be_idmapped_again() -> None:
    facts = host(mounts=(ROOT_MOUNT, Mount(HostPath("/mnt"), "ext4", 30, 20, is_idmapped=True)))
    assert not facts.can_idmap(HostPath("/mnt/tree"))


def test_all_mounts_below_count_where_they_come_along() -> None:
    facts = host(mounts=(ROOT_MOUNT, mount("/srv/x", "overlay", 30)))
    assert facts.can_idmap(HostPath("/srv"))
    assert not facts.can_idmap(HostPath("/srv"), with_submounts=True)


def test_masked_proc_concerns_users_only() -> None:
    mounts = (ROOT_MOUNT, PROC_MOUNT, mount("/proc/acpi", "tmpfs", 30, 21))
    assert user_host(mounts=mounts).proc_is_masked
    assert not host(mounts=mounts).proc_is_masked
    registry = mount("/proc/sys/fs/binfmt_misc", "binfmt_misc", 30, 21)
    assert not user_host(mounts=(ROOT_MOUNT, PROC_MOUNT, registry)).proc_is_masked


@pytest.mark.parametrize(("kernel", "has"), [((6, 6), False), ((6, 7), True), ((7, 0), True)])
def test_private_registries_came_with_linux_6_7(kernel: tuple[int, int], has: bool) -> None:
    assert host(kernel=kernel).has_private_binfmt == has


def test_is_within() -> None:
    assert is_within("/a/b", "/a")
    assert is_within("/a", "/a")
    assert is_within("/a", "/")
    assert not is_within("/ab", "/a")


def test_probe_of_this_host() -> None:
    found = Host.probe()
    assert found == Host.probe()
    assert (found.euid, found.has_own_proc) == (os.geteuid(), True)
    assert found.mounts_below(HostPath("/"))
