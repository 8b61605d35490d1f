"""Which partition is the root, what the others are for, and images that mislead."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.capability import require
from tests.crafted import Fifo, HardLink, Layout, Link, busybox, elf, make_tree, merged_usr
from tests.images import MIB, Content, Part, Spec, make_image
from xbuild.errors import AmbiguousRoot, ImageError, NoSuchPartition, UnsupportedImage
from xbuild.image.file import ImageFile
from xbuild.image.filesystem import Filesystem
from xbuild.image.opening import open_partition
from xbuild.image.survey import ImageSurvey, open_survey, require_root, survey_image
from xbuild.image.table import Partition
from xbuild.record import HostPath, replace
from xbuild.tree.target import survey

ARM64 = "/lib/ld-linux-aarch64.so.1"
TREE: Layout = merged_usr("arm64", ARM64)
FSTAB = b"""\
PARTUUID=2d5ab1e5-01 /boot/firmware vfat defaults 0 2
PARTUUID=2d5ab1e5-02 / ext4 noatime 0 1
LABEL=data /home ext4 defaults 0 2
/dev/sda1 ../../etc ext4 defaults 0 0
"""
ARM64_ROOT = "b921b045-1df0-41c3-af44-4c6f280d3fae"
RISCV64_ROOT = "72ec70a6-cf74-40e6-bd49-4bda08e8f224"


def roles(found: ImageSurvey) -> list[str]:
    return [item.role for item in found.partitions]


def whole(path: Path, content: Content, fs: str = "ext4", size: int = 16 * MIB) -> HostPath:
    return make_image(path / "image", table="none", layout=[("x", fs, size, content)])


def test_a_raspberry_pi_style_image(tmp_path: Path) -> None:
    layout: list[Spec] = [
        ("bootfs", "vfat", 8 * MIB, {"cmdline.txt": b"console=tty1\n"}),
        ("rootfs", "ext4", 16 * MIB, TREE | {"etc/fstab": FSTAB}),
        ("data", "ext4", 8 * MIB, {"user/file": b"x"}),
    ]
    found = survey_image(make_image(tmp_path / "image", layout=layout))
    assert roles(found) == ["boot", "root", "home"]
    assert found.root == 2
    assert require_root(found).partition.number == 2
    assert [(m.number, m.target) for m in found.mounts] == [(3, "/home"), (1, "/boot/firmware")]
    assert found.root_options == "noatime"
    assert found.notes == ("fstab: /dev/sda1 ../../etc: not an absolute path inside the tree",)
    tree = found.tree
    assert tree is not None
    assert tree.arch is not None
    assert (tree.arch.name, tree.kind, tree.libc, tree.shell) == (
        "aarch64", "image", "glibc", "/bin/sh"
    )  # fmt: skip
    assert tree.distribution is not None
    assert tree.distribution.codename == "bookworm"


@pytest.mark.parametrize("fs", ["ext2", "ext4", "squashfs", "erofs", "btrfs"])
@pytest.mark.parametrize("full", [False, True])
def test_every_reader_sees_the_same_tree(tmp_path: Path, fs: str, full: bool) -> None:
    if fs in ("erofs", "btrfs"):
        require("root", os.geteuid() == 0, f"only the kernel reads {fs}")
    size = (128 if fs == "btrfs" else 16) * MIB
    layout = TREE | {"usr/bin/other": elf("s390x")}
    if fs != "squashfs":  # unsquashfs does not tell which names are one file
        layout["usr/bin/copy"] = HardLink("usr/bin/true")
    image = make_image(tmp_path / "image", layout=[("", "", MIB, None), ("root", fs, size, layout)])
    os.mkdir(tmp_path / "tree")
    expected = survey(make_tree(tmp_path / "tree", layout), full=full)
    with open_survey(image, full=full) as opened:
        tree = opened.survey.tree
    assert tree is not None
    assert expected.leading_program == tree.leading_program
    changes = {"target": image, "kind": "image", "owner": tree.owner, "owner_gid": tree.owner_gid}
    assert tree == replace(expected, **changes)


def test_a_busybox_tree_alone_in_an_image(tmp_path: Path) -> None:
    found = survey_image(whole(tmp_path, busybox("mipsel")))
    assert (found.table.kind, found.root, roles(found)) == ("none", 0, ["root"])
    assert found.tree is not None
    assert found.tree.programs == (("mipsel", 1),)
    assert found.notes == ("it has no /etc/fstab: nothing says what is mounted where",)


def test_the_gpt_type_of_the_detected_architecture_decides(tmp_path: Path) -> None:
    layout: list[Spec] = [
        Part("one", "ext4", 16 * MIB, TREE),
        Part("two", "ext4", 16 * MIB, TREE, type=ARM64_ROOT),
        Part("three", "ext4", 16 * MIB, TREE, type=RISCV64_ROOT),
        Part("esp", "vfat", 8 * MIB, None, type="c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
        Part("swap", "swap", 8 * MIB),
    ]
    found = survey_image(make_image(tmp_path / "image", table="gpt", layout=layout))
    assert found.root == 2
    assert roles(found) == ["unknown", "root", "unknown", "esp", "swap"]


def test_a_type_that_contradicts_the_tree_is_said(tmp_path: Path) -> None:
    layout: list[Spec] = [Part("one", "ext4", 16 * MIB, TREE, type=RISCV64_ROOT)]
    found = survey_image(make_image(tmp_path / "image", table="gpt", layout=layout))
    assert found.root == 1
    assert found.notes[0] == "the type of partition 1 says riscv64, its programs are arm64"


def test_two_roots_are_both_named_and_one_is_chosen(tmp_path: Path) -> None:
    layout: list[Spec] = [
        ("", "", MIB, None),
        ("a", "ext4", 16 * MIB, TREE),
        ("b", "ext4", 16 * MIB, TREE),
    ]
    image = make_image(tmp_path / "image", layout=layout)
    found = survey_image(image)
    assert (found.root, found.tree, found.candidates) == (None, None, (2, 3))
    with pytest.raises(AmbiguousRoot, match=r"2 \(a, ext4\) and 3 \(b, ext4\)") as error:
        require_root(found)
    assert "--partition" in error.value.hint
    for wanted, number in (("2", 2), ("a", 2), ("b", 3), ("3", 3)):
        assert survey_image(image, partition=wanted).root == number


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("9", "has no partition 9"),
        ("", "has no partition"),
        ("twin", "Partitions 2 and 3 .* both labelled twin"),
        ("1", r"no root filesystem in partition 1 of .* \(vfat\)"),
        ("2", r"no root filesystem in partition 2 of .* \(ext4\)"),
    ],
)
def test_a_partition_that_was_named_wrongly(tmp_path: Path, wanted: str, message: str) -> None:
    parts = [("boot", "vfat", 8), ("twin", "ext4", 4), ("twin", "ext4", 4)]
    layout: list[Spec] = [(*p[:2], p[2] * MIB, None) for p in parts]
    image = make_image(tmp_path / "image", layout=layout)
    with pytest.raises(NoSuchPartition, match=message):
        survey_image(image, partition=wanted)


def test_usr_and_data_are_no_roots(tmp_path: Path) -> None:
    usr: Layout = {"bin/true": elf("arm64"), "lib/x": b"", "share": None}
    layout: list[Spec] = [
        ("usr", "ext4", 8 * MIB, usr),
        ("data", "ext4", 8 * MIB, {"etc/notes": b"x"}),
        ("r", "ext4", 16 * MIB, TREE),
    ]
    assert survey_image(make_image(tmp_path / "image", layout=layout)).root == 3


@pytest.mark.parametrize(
    ("fs", "role", "words", "hint"),
    [
        ("luks", "luks", "encrypted", "cryptsetup open /dev/loopXp2 "),
        ("lvm", "lvm", "physical volume of LVM", "vgchange -ay"),
    ],
)
def test_luks_and_lvm_are_refused_with_what_to_do(
    tmp_path: Path, fs: str, role: str, words: str, hint: str
) -> None:
    layout: list[Spec] = [("boot", "vfat", 8 * MIB, None), ("x", fs, 4 * MIB, None)]
    image = make_image(tmp_path / "image", layout=layout)
    found = survey_image(image)
    assert roles(found) == ["boot", role]
    for refuse in (lambda: require_root(found), lambda: survey_image(image, partition="2")):
        with pytest.raises(UnsupportedImage, match=words) as error:
            refuse()
        assert hint in error.value.hint


def test_a_file_system_that_lies_about_its_size(tmp_path: Path) -> None:
    layout: list[Spec] = [("a", "ext4", 16 * MIB, TREE), ("b", "", MIB, None)]
    image = make_image(tmp_path / "image", layout=layout)
    with open(image, "r+b") as file:  # the table's second field of sizes: 8 MiB
        file.seek(446 + 12)
        file.write(struct.pack("<I", 8 * MIB // 512))
    found = survey_image(image)
    assert found.root is None
    assert found.partitions[0].problem == (
        f"its file system says it has {16 * MIB} bytes, but its partition has {8 * MIB}"
    )
    with pytest.raises(ImageError, match="says it has"):
        require_root(found)


def test_a_corrupt_superblock_with_a_backup(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", layout=[("a", "ext4", 160 * MIB, TREE)])
    with open(image, "r+b") as file:
        file.seek(MIB + 1024)
        file.write(os.urandom(1024))
    with pytest.raises(ImageError, match=r"superblock .* is damaged; a backup is in block 32768"):
        require_root(survey_image(image))


def test_a_corrupt_superblock_without_a_backup(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", layout=[("a", "ext4", 16 * MIB, TREE)])
    with open(image, "r+b") as file:
        file.seek(MIB + 1024)
        file.write(bytes(1024))
    with pytest.raises(NoSuchPartition) as error:
        require_root(survey_image(image))
    assert "partition 1" in error.value.hint


@pytest.mark.parametrize("where", ["block size", "group descriptors", "inodes", "everything"])
def test_garbled_file_systems_end_in_an_error_or_in_no_root(tmp_path: Path, where: str) -> None:
    image = whole(tmp_path, TREE)
    with open(image, "r+b") as file:
        match where:
            case "block size":
                file.seek(1024 + 0x18)
                file.write(b"\xff\xff\xff\xff")
            case "group descriptors":
                file.seek(4096)
                file.write(os.urandom(4096))
            case "inodes":
                file.seek(8192)
                file.write(os.urandom(2 * MIB))
            case _:
                file.seek(2048)
                file.write(os.urandom(15 * MIB))
    try:
        found = survey_image(image)
    except ImageError:
        return
    with pytest.raises(ImageError):
        require_root(found)


def test_a_symlinked_image(tmp_path: Path) -> None:
    whole(tmp_path, TREE)
    (tmp_path / "link").symlink_to("image")
    found = survey_image(HostPath(str(tmp_path / "link")))
    assert (found.path, found.root) == (str(tmp_path / "link"), 0)


def test_a_squashfs_cut_off(tmp_path: Path) -> None:
    image = whole(tmp_path, TREE | {"random": os.urandom(MIB)}, "squashfs")
    os.truncate(image, 4096)
    found = survey_image(image)
    assert found.root is None
    with pytest.raises(ImageError, match="says it has"):
        require_root(found)


def test_a_squashfs_with_garbled_tables(tmp_path: Path) -> None:
    image = whole(tmp_path, TREE, "squashfs")
    with open(image, "r+b") as file:
        file.seek(96)
        file.write(os.urandom(4000))
    with pytest.raises(ImageError, match="squashfs is damaged"):
        require_root(survey_image(image))


def test_an_fstab_that_is_no_file(tmp_path: Path) -> None:
    for content in (Fifo, Link("/dev/zero"), Link("fstab"), Link("../../../../etc/shadow")):
        found = survey_image(whole(tmp_path, TREE | {"etc/fstab": content}))
        assert found.root == 0
        assert found.mounts == ()
        assert len(found.notes) == 1


def test_a_survey_costs_a_bounded_number_of_processes(tmp_path: Path) -> None:
    require("strace", os.access("/usr/bin/strace", os.X_OK), "processes are counted with strace")
    many: Layout = {f"usr/bin/program{n}": elf("arm64") for n in range(300)}
    image = whole(tmp_path, TREE | many)
    code = f"from xbuild.image.survey import survey_image; survey_image({image!r})"
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=execve", "-o", str(trace), sys.executable, "-c", code]
    subprocess.run(command, check=True, capture_output=True)
    started = [line for line in trace.read_text().splitlines() if line.endswith("= 0")]
    assert len(started) < 60


def test_an_image_of_a_virtual_machine_is_refused_with_the_command(tmp_path: Path) -> None:
    path = HostPath(str(tmp_path / "a b.qcow2"))
    Path(path).write_bytes(b"QFI\xfb\0\0\0\x03" + bytes(1000))
    with pytest.raises(UnsupportedImage, match="qcow2") as error:
        survey_image(path)
    command, warning = error.value.hint.splitlines()
    assert command == f"qemu-img convert -f qcow2 -O raw '{path}' '{tmp_path}/a b.img'"
    assert "any of yours: qemu-img info" in warning


def test_an_ordinary_user_is_told_what_needs_root(tmp_path: Path) -> None:
    image = whole(tmp_path, TREE, "erofs")
    with ImageFile(image) as file:
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(UnsupportedImage, match="needs root"):
                open_partition(file, Partition(0, 0, file.size, ""), Filesystem("erofs"))
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
