"""Parsing mount tables, and naming the mount that a path is on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xbuild.sandbox.mountinfo import MountRow, is_within, mount_of, parse_row, read_mountinfo


def test_row_with_escapes_and_tags_is_parsed() -> None:
    line = (
        r"36 35 98:0 /mnt1 /mnt\0402\134x rw,noatime shared:3 master:1 - ext3 /dev/root rw,errors=x"
    )
    assert parse_row(line) == MountRow(
        36,
        "98:0",
        "/mnt1",
        "/mnt 2\\x",
        "rw,noatime",
        ("shared:3", "master:1"),
        "ext3",
        "/dev/root",
        "rw,errors=x",
    )


def test_groups_are_those_of_every_tag() -> None:
    row = parse_row("1 2 0:1 / / rw shared:3 propagate_from:9 unbindable - tmpfs none rw")
    assert row.groups == {"3", "9"}


def test_row_without_tags_and_with_an_empty_source_is_parsed() -> None:
    row = parse_row("1 2 0:1 / /proc rw - proc  rw")
    assert (row.tags, row.filesystem, row.source, row.super_options) == ((), "proc", "", "rw")


def test_mount_of_a_path_is_that_of_its_device(tmp_path: Path) -> None:
    assert mount_of("/proc/self").filesystem == "proc"
    assert mount_of(str(tmp_path)) in read_mountinfo()


def test_mount_of_what_is_not_there_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        mount_of(os.path.join(tmp_path, "absent"))


@pytest.mark.parametrize(
    ("path", "directory", "expected"),
    [
        ("/srv/pi", "/srv/pi", True),
        ("/srv/pi/bin", "/srv/pi", True),
        ("/srv/pi2", "/srv/pi", False),
        ("/srv", "/srv/pi", False),
        ("/anything", "/", True),
        ("/", "/", True),
        ("socket:[123]", "/", False),
    ],
)
def test_being_within_is_by_whole_names(path: str, directory: str, expected: bool) -> None:
    assert is_within(path, directory) is expected
