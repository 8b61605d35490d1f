"""Inventories: the same for the same tree wherever it lies, another for other packages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from xbuild.record import HostPath
from xbuild.tree.inventory import read_inventory
from xbuild.tree.resolve import DirectoryReader

DPKG = """\
Package: libc6
Status: install ok installed
Architecture: arm64
Version: 2.36-9

Package: make
Status: install ok installed
Architecture: arm64
Version: 4.3-4

Package: gone
Status: deinstall ok config-files
Architecture: arm64
Version: 1
"""
APK = """\
C:Q1abc=
P:musl
V:1.2.4-r0
A:aarch64
t:1690000000

C:Q1def=
P:make
V:4.4-r1
A:aarch64
"""


def inventory(root: Path) -> tuple[str, ...]:
    with DirectoryReader(HostPath(str(root))) as reader:
        return read_inventory(reader)


def put(root: Path, path: str, text: str) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def test_dpkg(tmp_path: Path) -> None:
    put(tmp_path, "var/lib/dpkg/status", DPKG)
    assert inventory(tmp_path) == ("dpkg libc6 arm64 2.36-9", "dpkg make arm64 4.3-4")


def test_apk(tmp_path: Path) -> None:
    put(tmp_path, "lib/apk/db/installed", APK)
    assert inventory(tmp_path) == (
        "apk A:aarch64 C:Q1abc= P:musl V:1.2.4-r0",
        "apk A:aarch64 C:Q1def= P:make V:4.4-r1",
    )


def test_pacman(tmp_path: Path) -> None:
    put(tmp_path, "var/lib/pacman/local/ALPM_DB_VERSION", "9\n")
    put(tmp_path, "var/lib/pacman/local/make-4.4-1/desc", "%INSTALLDATE%\n1\n")
    assert inventory(tmp_path) == ("pacman make-4.4-1",)


def test_portage(tmp_path: Path) -> None:
    for name, text in (("USE", "nls  static\n"), ("COUNTER", "17\n"), ("BUILD_TIME", "1\n")):
        put(tmp_path, f"var/db/pkg/dev-build/make-4.4/{name}", text)
    before = inventory(tmp_path)
    put(tmp_path, "var/db/pkg/dev-build/make-4.4/BUILD_TIME", "2\n")
    assert inventory(tmp_path) == before
    assert len(before) == 1
    put(tmp_path, "var/db/pkg/dev-build/make-4.4/USE", "nls\n")
    assert inventory(tmp_path) != before


def test_files_where_there_is_no_database(tmp_path: Path) -> None:
    put(tmp_path / "one", "bin/busybox", "program")
    os.symlink("busybox", tmp_path / "one/bin/sh")
    put(tmp_path / "one", "var/log/today", "noise")
    put(tmp_path / "one", "var/lib/rpm/rpmdb.sqlite", "dates")
    shutil.copytree(tmp_path / "one", tmp_path / "two", symlinks=True)
    os.utime(tmp_path / "two/bin/busybox", (0, 0))
    put(tmp_path / "two", "var/log/today", "other noise")
    put(tmp_path / "two", "tmp/x", "")
    put(tmp_path / "two", "var/lib/rpm/rpmdb.sqlite", "other dates")
    lines = inventory(tmp_path / "one")
    assert lines == inventory(tmp_path / "two")
    assert "link ./bin/sh busybox" in lines


@pytest.mark.parametrize("change", ["content", "mode", "link", "name"])
def test_a_changed_file_shows(tmp_path: Path, change: str) -> None:
    put(tmp_path, "bin/busybox", "program")
    os.symlink("busybox", tmp_path / "bin/sh")
    before = inventory(tmp_path)
    match change:
        case "content":
            put(tmp_path, "bin/busybox", "Program")
        case "mode":
            (tmp_path / "bin/busybox").chmod(0o700)
        case "link":
            (tmp_path / "bin/sh").unlink()
            os.symlink("dash", tmp_path / "bin/sh")
        case _:
            (tmp_path / "bin/busybox").rename(tmp_path / "bin/box")
    assert inventory(tmp_path) != before


def test_links_are_not_followed_out_of_the_tree(tmp_path: Path) -> None:
    os.symlink("/etc", tmp_path / "etc")
    assert inventory(tmp_path) == ("link ./etc /etc",)


def test_a_fifo_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert inventory(tmp_path) == ()
