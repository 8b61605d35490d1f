from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.crafted import OS_RELEASE, Fifo, Layout, Link, make_tree
from xbuild.tree.distribution import Distribution, parse_os_release, read_distribution
from xbuild.tree.resolve import DirectoryReader


def distribution_of(root: Path, layout: Layout) -> Distribution | None:
    with DirectoryReader(make_tree(root, {"etc": None, **layout})) as reader:
        return read_distribution(reader)


def test_os_release_is_read_through_its_symlink(tmp_path: Path) -> None:
    layout: Layout = {
        "etc/os-release": Link("/usr/lib/os-release"),
        "usr/lib/os-release": OS_RELEASE,
    }
    assert distribution_of(tmp_path, layout) == Distribution(
        "debian", "Debian GNU/Linux", "12", "bookworm", "Debian GNU/Linux 12 (bookworm)"
    )


def test_the_vendors_os_release_serves_alone(tmp_path: Path) -> None:
    found = distribution_of(tmp_path, {"usr/lib/os-release": b"ID=void\nNAME=Void\n"})
    assert found == Distribution("void", "Void", pretty_name="Void")


def test_relatives_are_named(tmp_path: Path) -> None:
    found = distribution_of(tmp_path, {"etc/os-release": b'ID=x\nID_LIKE="ubuntu debian"\n'})
    assert found is not None
    assert found.like == ("ubuntu", "debian")


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("alpine-release", "3.19.1\n", ("alpine", "3.19.1", "", "Alpine Linux 3.19.1")),
        ("debian_version", "9.13\n", ("debian", "9.13", "", "Debian GNU/Linux 9.13")),
        ("debian_version", "trixie/sid\n", ("debian", "", "trixie", "Debian GNU/Linux trixie/sid")),
        ("gentoo-release", "Gentoo Base System release 2.15\n",
         ("gentoo", "2.15", "", "Gentoo Base System release 2.15")),
        ("openwrt_version", "23.05.2\n", ("openwrt", "23.05.2", "", "OpenWrt 23.05.2")),
        ("redhat-release", "CentOS release 6.10 (Final)\n",
         ("rhel", "6.10", "", "CentOS release 6.10 (Final)")),
        ("arch-release", "", ("arch", "", "", "Arch Linux")),
    ],
)  # fmt: skip
def test_older_files_name_a_distribution(
    tmp_path: Path, path: str, content: str, expected: tuple[str, str, str, str]
) -> None:
    found = distribution_of(tmp_path, {f"etc/{path}": content.encode()})
    assert found is not None
    assert (found.id, found.version, found.codename, found.pretty_name) == expected


@pytest.mark.parametrize(
    "layout",
    [{}, {"etc/os-release": Fifo}, {"etc/os-release": Link("os-release")},
     {"etc/os-release": b"\xff\xfe\x00garbage"}, {"etc/os-release": None},
     {"etc/os-release": b""}],
)  # fmt: skip
def test_nothing_is_said_where_no_file_says(tmp_path: Path, layout: Layout) -> None:
    assert distribution_of(tmp_path, layout) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=plain", "plain"),
        ("A='single $x \\'", "single $x \\"),
        ('A="double \\"quoted\\" \\$x \\\\"', 'double "quoted" $x \\'),
        ("  A = spaced", None),
        ("# A=comment", None),
        ("A=", ""),
        ('A="no end', "no end"),
        ("A-B=no name", None),
    ],
)
def test_values_are_unquoted_as_a_shell_would(text: str, value: str | None) -> None:
    assert parse_os_release(text).get("A") == value


def test_a_huge_value_is_cut(tmp_path: Path) -> None:
    content = b"ID=" + b"x" * (1 << 20) + b"\n"
    found = distribution_of(tmp_path, {"etc/os-release": content})
    assert found is not None
    assert len(found.id) <= 256
    assert os.path.getsize(tmp_path / "etc/os-release") > 1 << 20
