from __future__ import annotations

from pathlib import Path

import pytest

from tests.crafted import Layout, Link, make_tree
from xbuild.tree.chost import chost_for, declared_chost
from xbuild.tree.distribution import Distribution
from xbuild.tree.resolve import DirectoryReader

GENTOO = Distribution("gentoo", "Gentoo")


@pytest.mark.parametrize(
    ("base", "libc", "chost"),
    [
        ("aarch64-unknown-linux-gnu", "glibc", "aarch64-unknown-linux-gnu"),
        ("aarch64-unknown-linux-gnu", "musl", "aarch64-unknown-linux-musl"),
        ("aarch64-unknown-linux-gnu", None, "aarch64-unknown-linux-gnu"),
        ("aarch64-unknown-linux-gnu", "klibc", "aarch64-unknown-linux-gnu"),
        ("armv6j-unknown-linux-gnueabihf", "glibc", "armv6j-unknown-linux-gnueabihf"),
        ("armv7a-unknown-linux-gnueabihf", "musl", "armv7a-unknown-linux-musleabihf"),
        ("armv7a-unknown-linux-gnueabihf", "uclibc", "armv7a-unknown-linux-uclibcgnueabihf"),
        ("armv7a-unknown-linux-gnueabihf", "bionic", "armv7a-unknown-linux-androideabi"),
        ("mips-unknown-linux-gnu", "uclibc", "mips-unknown-linux-uclibc"),
        ("mips64-unknown-linux-gnuabin32", "musl", "mips64-unknown-linux-muslabin32"),
        ("x86_64-pc-linux-gnux32", "musl", "x86_64-pc-linux-muslx32"),
        ("xtensa-unknown-linux-uclibc", "glibc", "xtensa-unknown-linux-gnu"),
        ("hexagon-unknown-linux-musl", "musl", "hexagon-unknown-linux-musl"),
    ],
)
def test_the_c_library_decides_the_environment(base: str, libc: str | None, chost: str) -> None:
    assert chost_for(base, libc) == chost


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        (b'# comment\nCHOST="armv6j-unknown-linux-gnueabihf"\n', "armv6j-unknown-linux-gnueabihf"),
        (b'CFLAGS="-O2"\n', None),
        (b"CHOST=$(evil)\n", None),
        (b"\xff\x00", None),
    ],
)
def test_a_gentoo_trees_own_name_is_read(tmp_path: Path, text: bytes, declared: str | None) -> None:
    with DirectoryReader(make_tree(tmp_path, {"etc/portage/make.conf": text})) as reader:
        assert declared_chost(reader, GENTOO) == declared
        assert declared_chost(reader, Distribution("debian", "Debian")) is None
        assert declared_chost(reader, None) is None


def test_a_make_conf_that_is_no_file_declares_nothing(tmp_path: Path) -> None:
    layout: Layout = {"etc/portage/make.conf": None, "etc/make.conf": Link("make.conf")}
    with DirectoryReader(make_tree(tmp_path, layout)) as reader:
        assert declared_chost(reader, GENTOO) is None
