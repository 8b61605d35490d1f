"""What an image's fstab means for its own partitions, and the nonsense that it may say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.image.filesystem import Filesystem
from xbuild.image.fstab import FstabEntry, match_fstab, parse_fstab
from xbuild.image.table import Partition

PARTITIONS = (
    (Partition(1, 1, 1, "c", "", "2d5ab1e5-01"), Filesystem("vfat", "bootfs", "ABCD-1234")),
    (Partition(2, 2, 1, "83", "", "2d5ab1e5-02"), Filesystem("ext4", "rootfs", "1-2-3")),
    (Partition(3, 3, 1, "83", "home part", "2d5ab1e5-03"), Filesystem("ext4", "my home", "4-5-6")),
    (Partition(4, 4, 1, "83"), None),
)


def mounts(text: str) -> list[tuple[int, str]]:
    return [(m.number, m.target) for m in match_fstab(parse_fstab(text), PARTITIONS, 2)[0]]


def notes(text: str) -> tuple[str, ...]:
    return match_fstab(parse_fstab(text), PARTITIONS, 2)[1]


def test_a_raspberry_pis() -> None:
    text = """\
# comment
proc            /proc           proc    defaults          0       0
PARTUUID=2d5ab1e5-01  /boot/firmware  vfat    defaults,ro  0       2
PARTUUID=2d5ab1e5-02  /               ext4    defaults,noatime  0       1
tmpfs /tmp tmpfs nosuid 0 0
/swapfile none swap sw 0 0
server:/export /mnt/net nfs defaults 0 0
"""
    found, said = match_fstab(parse_fstab(text), PARTITIONS, 2)
    assert [(m.number, m.target, m.options) for m in found] == [
        (2, "/", "defaults,noatime"),
        (1, "/boot/firmware", "defaults,ro"),
    ]
    assert said == ()


@pytest.mark.parametrize(
    "source",
    [
        "UUID=4-5-6",
        'UUID="4-5-6"',
        r"LABEL=my\040home",
        "PARTUUID=2D5AB1E5-03",
        r"PARTLABEL=home\040part",
        "/dev/disk/by-uuid/4-5-6",
        "/dev/disk/by-partuuid/2d5ab1e5-03",
        "/dev/mmcblk0p3",
        "/dev/nvme0n1p3",
        "/dev/sda3",
    ],
)
def test_every_way_to_name_a_partition(source: str) -> None:
    assert mounts(f"{source} /home ext4 defaults 0 2") == [(3, "/home")]


def test_parents_come_first_and_the_root_before_all() -> None:
    text = "UUID=4-5-6 /boot/efi ext4\nUUID=ABCD-1234 /boot vfat\n/dev/root / ext4"
    assert mounts(text) == [(2, "/"), (1, "/boot"), (3, "/boot/efi")]


def test_devices_are_of_the_roots_disk() -> None:
    text = "/dev/sda2 / ext4\n/dev/sda1 /boot vfat\n/dev/sdb3 /data ext4"
    assert mounts(text) == [(2, "/"), (1, "/boot")]
    assert notes(text) == ("fstab: /dev/sdb3 /data: no partition of this image",)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("UUID=4-5-6 ../../etc ext4", "not an absolute path"),
        ("UUID=4-5-6 /mnt/../../etc ext4", "not an absolute path"),
        ("UUID=4-5-6 /mnt/\\056\\056/etc ext4", "not an absolute path"),
        ("UUID=4-5-6 /a\\012b ext4", "not an absolute path"),
        ("UUID=4-5-6 /a\\000b ext4", "not an absolute path"),
        ("UUID=4-5-6 none ext4", "not an absolute path"),
        ("garbage", "garbage: not an absolute path"),
        (f"UUID=4-5-6 /{'a' * 5000} ext4", "not an absolute path"),
        ("UUID=4-5-6 /proc/sys ext4", "the container has its own"),
        ("UUID=4-5-6 //dev ext4", "the container has its own"),
        ("UUID=4-5-6 /home ext4 noauto", "noauto"),
        ("UUID=nothing /home ext4", "no partition of this image"),
        ("UUID= /home ext4", "no partition of this image"),
        ("=x /home ext4", "no partition of this image"),
        ("/dev/sda99999999999999999999 /home ext4", "no partition of this image"),
        ("/dev/../dev/sda3 /home ext4", "no partition of this image"),
    ],
)
def test_nonsense_is_left_out_with_a_note(line: str, reason: str) -> None:
    assert mounts(line) == []
    assert [reason in note for note in notes(line)] == [True]
    assert len(notes(line)[0]) < 200


def test_the_first_line_of_a_mount_point_counts() -> None:
    text = "UUID=4-5-6 /home ext4\nUUID=ABCD-1234 /home/ vfat"
    assert mounts(text) == [(3, "/home")]
    assert "mounted by a line before" in notes(text)[0]


def test_an_ambiguous_label_is_no_partition() -> None:
    twice = (PARTITIONS[0], (PARTITIONS[1][0], PARTITIONS[0][1]))
    entries = (FstabEntry("LABEL=bootfs", "/boot", "vfat", "defaults"),)
    assert match_fstab(entries, twice, 9)[0] == ()


@given(st.text())
def test_any_text_gives_safe_targets(text: str) -> None:
    for mount in match_fstab(parse_fstab(text), PARTITIONS, 2)[0]:
        assert mount.target.startswith("/")
        assert ".." not in mount.target.split("/")
        assert mount.number in (1, 2, 3, 4)
