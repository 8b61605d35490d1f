"""make.conf and make.profile of Gentoo trees: read as Portage does, and never executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from portage.exception import ParseError
from portage.util import getconfig

from tests.crafted import Layout, Link, make_tree
from xbuild.binary.arch import arch_named
from xbuild.errors import TargetError
from xbuild.tree.chost import fits, is_chost
from xbuild.tree.portage import (
    PortageTree,
    is_of_profile,
    parse_make_conf,
    read_portage_tree,
)
from xbuild.tree.resolve import DirectoryReader

PROFILE = Link("../../var/db/repos/gentoo/profiles/default/linux/arm64/23.0/desktop")


def portage_of(root: Path, layout: Layout) -> PortageTree:
    with DirectoryReader(make_tree(root, {"etc": None, **layout})) as reader:
        return read_portage_tree(reader)


def parse(text: str, label: str = "make.conf") -> Mapping[str, str]:
    return parse_make_conf(text, {}, label, lambda name, _so_far: {"SOURCED": name})


def test_stage3_of_gentoo(tmp_path: Path) -> None:
    text = b"""# These settings were set by the catalyst build script
COMMON_FLAGS="-O2 -pipe -march=armv8-a+crc"
CFLAGS="${COMMON_FLAGS}"
CXXFLAGS="$COMMON_FLAGS -fno-rtti"
CHOST="aarch64-unknown-linux-gnu"   # do not change
export LC_MESSAGES=C.utf8
USE='a
  -b'
"""
    found = portage_of(
        tmp_path, {"etc/portage/make.conf": text, "etc/portage/make.profile": PROFILE}
    )
    assert found.profile == "default/linux/arm64/23.0/desktop"
    assert found.cflags == ("-O2", "-pipe", "-march=armv8-a+crc", "-fno-rtti")
    assert found.make_conf["CHOST"] == "aarch64-unknown-linux-gnu"
    assert found.make_conf["LC_MESSAGES"] == "C.utf8"
    assert found.make_conf["USE"].split() == ["a", "-b"]


def test_directory_of_files_in_their_order(tmp_path: Path) -> None:
    layout: Layout = {
        "etc/portage/make.conf/20-later": b"CFLAGS='$CFLAGS -b'\n",
        "etc/portage/make.conf/10-first": b"CFLAGS=-a\n",
        "etc/portage/make.conf/.hidden": b"CFLAGS=-c\n",
        "etc/portage/make.conf/30-copy~": b"CFLAGS=-d\n",
    }
    assert portage_of(tmp_path, layout).cflags == ("-a", "-b")


def test_nothing_is_executed(tmp_path: Path) -> None:
    parse(f'A="$(touch {tmp_path}/made)`touch {tmp_path}/made`"\n')
    assert not (tmp_path / "made").exists()


FLAGS: Layout = {
    "etc/portage/make.conf": b"D=/etc\nsource more/flags\nsource ${D}/last\nCXXFLAGS=$CFLAGS\n",
    "etc/portage/more/flags": b"source ../deeper\nCFLAGS='-a $DEEP'\n",
    "etc/portage/deeper": b"DEEP=-b\n",
    "etc/last": Link("../usr/last"),
    "usr/last": b'CFLAGS="${CFLAGS} \\\n  -c"',
}


def test_sourced_files_are_the_trees(tmp_path: Path) -> None:
    """Relative to the file that sources them, by variables, through links of the tree's."""
    found = portage_of(tmp_path, FLAGS)
    assert found.cflags == ("-a", "-b", "-c")
    assert found.make_conf["CXXFLAGS"].split() == ["-a", "-b", "-c"]


@pytest.mark.parametrize(
    "text",
    [
        "A=1\nB='$A ${A}x'\nC=\"$B\"",
        'COMMON="-O2 \\\n -pipe"\nCFLAGS="${COMMON}"\nUSE="a\n b # no comment\n"\n',
        "export A=b # comment\nC=$NOTHING-x\nD=''\n",
        "source /etc/hostname-that-is-not-there\n",
        "A=b c=d\nE = f\n",
        "# only a comment\n\n",
        "A='$B'\nB=1\nA2=$A\n",
        'FEATURES="-sandbox ${FEATURES}"\nACCEPT_LICENSE=*\nX=~amd64\n',
    ],
)
def test_values_are_those_that_portage_reads(tmp_path: Path, text: str) -> None:
    """Compared with the real one, but for the blanks between words."""
    root = make_tree(tmp_path, {"etc/portage/make.conf": text.encode()})
    with DirectoryReader(root) as reader:
        try:
            ours = {k: v.split() for k, v in read_portage_tree(reader).make_conf.items()}
        except TargetError:
            ours = None
    assert ours == _read_by_portage(Path(root, "etc/portage/make.conf"))


def _read_by_portage(path: Path) -> dict[str, list[str]] | None:
    try:
        found = getconfig(str(path), allow_sourcing=True, expand={})
    except ParseError:
        return None
    return {key: value.split() for key, value in found.items()}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('A="1"\nB="open\n\n', "make.conf:2: no closing quotation"),
        ("A=1\nthis is nonsense\n", "make.conf:2: not NAME=VALUE: 'this'"),
        ("A=1\n\nif true; then\n", "make.conf:3: not NAME=VALUE"),
        ("A=", "A has no value"),
        ("= =\n", "not NAME=VALUE: '='"),
        ("{ }\n", "not NAME=VALUE"),
        ("A=" + "x" * 1024 + "\n" + 'A="$A$A"\n' * 60, "make.conf:11: its values have more than"),
        ("A=" + "x" * 65536 + "\nB=" + "$A" * 65536, "make.conf:2: its values have more than"),
    ],
)
def test_nonsense_is_refused_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse(text)
    assert complaint in caught.value.message
    assert "make.conf(5)" in caught.value.hint


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except TargetError as error:
        complaint = error.message
    else:
        return
    assert complaint.startswith("make.conf:")


@pytest.mark.parametrize(
    ("layout", "complaint"),
    [
        (
            {"etc/portage/make.conf": b"A=1\nsource /no"},
            r"conf:2: sources /no, which the tree does",
        ),
        (
            {"etc/portage/make.conf": b"source ./make.conf"},
            r"conf:1: sources .*, which it is a part",
        ),
        (
            {"etc/portage/make.conf": b"source a", "etc/portage/a": b"\nnonsense here"},
            r"/etc/portage/a:2: not NAME=VALUE: 'nonsense'",
        ),
        (
            {"etc/portage/make.conf": b"source /proc/../../etc"},
            "Cannot read /etc in .*: it is a directory",
        ),
    ],
)
def test_source_that_leads_nowhere(tmp_path: Path, layout: Layout, complaint: str) -> None:
    with pytest.raises(TargetError, match=complaint):
        portage_of(tmp_path, layout)


def test_binary_make_conf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"make\.conf:2: not text"):
        portage_of(tmp_path, {"etc/portage/make.conf": b"A=1\n\0\0"})


def test_tree_that_is_no_gentoo(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="is no Gentoo tree"):
        portage_of(tmp_path, {"etc/fstab": b""})


@pytest.mark.parametrize(
    ("profile", "arch", "wanted"),
    [
        ("default/linux/arm64/23.0", "aarch64", True),
        ("default/linux/arm64/23.0", "arm", False),
        ("default/linux/arm/23.0/armv7a", "arm", True),
        ("default/linux/riscv/23.0/rv64/lp64d", "riscv64", True),
        ("default/linux/ppc64/23.0", "ppc64le", True),
        ("default/linux/ppc/23.0", "ppc64", False),
        ("targets/mine", "s390x", True),
    ],
)
def test_profile_names_an_architecture(profile: str, arch: str, wanted: bool) -> None:
    assert is_of_profile(profile, arch) is wanted


@pytest.mark.parametrize(
    "text", ["", "..", "../../etc", "a:b-c", "a/b-c", "-", ".-a", "a--b", "é-b"]
)
def test_text_that_is_no_chost(text: str) -> None:
    """It names a directory on the host."""
    assert not is_chost(text)


@pytest.mark.parametrize(
    ("chost", "arch", "wanted"),
    [
        ("armv6j-unknown-linux-gnueabihf", "arm", True),
        ("armv7a-unknown-linux-gnueabihf", "aarch64", False),
        ("aarch64-unknown-linux-gnu", "aarch64", True),
        ("aarch64-unknown-linux-gnu", "x86_64", False),
        ("mips64el-unknown-linux-gnu", "mipsn32el", True),
        ("mips64-unknown-linux-gnu", "mips64el", False),
        ("powerpc64le-unknown-linux-gnu", "ppc64le", True),
        ("powerpc64-unknown-linux-gnu", "ppc64le", False),
        ("madeup-unknown-linux-gnu", "s390x", True),
    ],
)
def test_chost_is_of_a_machine(chost: str, arch: str, wanted: bool) -> None:
    assert fits(chost, arch_named(arch)) is wanted


def test_files_that_source_each_other_twice_come_to_an_end(tmp_path: Path) -> None:
    layout: Layout = {
        f"etc/portage/{number}": f"source {number + 1}\n".encode() * 2 for number in range(40)
    }
    layout |= {"etc/portage/40": b"A=1\n", "etc/portage/make.conf": b"source 0\n"}
    with pytest.raises(TargetError, match="after 100 files"):
        portage_of(tmp_path, layout)
