"""Trees read by debugfs and unsquashfs: odd names, links that climb, files that lie."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.crafted import Fifo, Layout, Link, elf, merged_usr
from tests.images import MIB, Content, make_image
from xbuild.errors import SymlinkLoop, TargetError
from xbuild.image.debugfs import ExtReader
from xbuild.image.file import ImageFile
from xbuild.image.nodes import NodeReader
from xbuild.image.squashfs import SquashfsReader
from xbuild.image.survey import open_survey, survey_image
from xbuild.record import GuestPath, HostPath

TREE: Layout = merged_usr("arm64", "/lib/ld-linux-aarch64.so.1")


def whole(path: Path, content: Content, fs: str = "ext4") -> HostPath:
    return make_image(path / "image", table="none", layout=[("x", fs, 16 * MIB, content)])


def reader_of(image: HostPath) -> tuple[ImageFile, ExtReader]:
    file = ImageFile(image)
    return file, ExtReader(file, 0, file.size, "it")


def test_names_and_links_with_every_kind_of_character(tmp_path: Path) -> None:
    long = "/" + "x/" * 100 + ".."
    layout: Layout = {
        "a b": b"1",
        "new\nline": b"2",
        "quote\"'": b"3",
        "\n/2/040755/0/0/etc": b"4",
        "slow": Link(long),
        "odd": Link('a"\nb'),
        os.fsdecode(b"\xff\xfe"): b"5",
    }
    file, reader = reader_of(whole(tmp_path, {k: v for k, v in layout.items() if k[0] != "\n"}))
    with file:
        assert set(reader.listdir(GuestPath("/"))) == {
            "a b", "new\nline", "quote\"'", "slow", "odd", os.fsdecode(b"\xff\xfe"), "lost+found"
        }  # fmt: skip
        assert reader.read(GuestPath("/new\nline"), 10) == b"2"
        assert reader.read(GuestPath(os.fsdecode(b"/\xff\xfe")), 10) == b"5"
        assert reader.link_of(reader._entries(reader.root)["slow"]) == long
        assert reader.link_of(reader._entries(reader.root)["odd"]) == 'a"\nb'


@pytest.mark.parametrize("fs", ["ext4", "squashfs"])
def test_links_stay_inside_and_loops_end(tmp_path: Path, fs: str) -> None:
    layout: Layout = {
        "etc/passwd": b"inside",
        "up": Link("../../../../etc/passwd"),
        "absolute": Link("/etc/passwd"),
        "loop": Link("loop"),
        "a": Link("b/c"),
        "b": Link("a"),
        "fifo": Fifo,
        "over": Link("etc/passwd/more"),
    }
    with ImageFile(whole(tmp_path, layout, fs)) as file:
        reader: NodeReader = (
            SquashfsReader(file, 0, "it")
            if fs == "squashfs"
            else ExtReader(file, 0, file.size, "it")
        )
        assert reader.read(GuestPath("/up"), 99) == b"inside"
        assert reader.read(GuestPath("/absolute"), 3) == b"ins"
        assert reader.resolve(GuestPath("/../etc/./passwd")) == "/etc/passwd"
        for loop in ("/loop", "/a", "/b/x"):
            with pytest.raises(SymlinkLoop):
                reader.resolve(GuestPath(loop))
        with pytest.raises(TargetError, match="FIFO"):
            reader.read(GuestPath("/fifo"), 1)
        assert reader.lookup(GuestPath("/over")) is None
        assert reader.lookup(GuestPath("/etc/passwd/..")) is None
        assert reader.present(GuestPath("/"), ("loop", "nothing", "etc")) == ("loop", "etc")
        assert reader.present(GuestPath("/nothing"), ("x",)) == ()
        entry = reader.lookup(GuestPath("/etc"))
        assert entry is not None
        assert stat.S_ISDIR(entry.mode)


def test_a_file_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    image = whole(tmp_path, TREE | {"usr/bin/dash": elf("arm64") + bytes(5000)})
    for field in ("size", "size_high"):
        command = [
            "debugfs",
            "-w",
            "-R",
            f"set_inode_field /usr/bin/dash {field} 2147483647",
            image,
        ]
        environment = {"PATH": "/usr/sbin:/sbin:/usr/bin"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
    file, reader = reader_of(image)
    with file:
        assert reader.read(GuestPath("/usr/bin/dash"), 4) == b"\x7fELF"
        with pytest.raises(TargetError, match="bytes"):
            reader.open(GuestPath("/usr/bin/dash"))
    assert survey_image(image).root == 0


def test_a_directory_that_contains_itself(tmp_path: Path) -> None:
    image = whole(tmp_path, TREE | {"usr/bin/deep/x": b""})
    environment = {"PATH": "/usr/sbin:/sbin:/usr/bin"}
    command = ["debugfs", "-w", "-R", "ln / /usr/bin/deep/again", image]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    with open_survey(image, full=True) as opened:
        assert opened.survey.tree is not None
        assert opened.survey.tree.programs == (("aarch64", 2),)
