"""``xbuild run --fsck``: every file system by its own program, also one that the kernel lacks.

The damage is real, and whether it is mended the programs say, not xbuild.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.crafted import make_tree
from tests.disks import SIZE, assert_free, checksum, kernel_filesystems, running, small_system
from tests.images import MIB, Part, copy_sparse, make_image
from tests.runs import Runner, notes
from xbuild.image.table import read_table
from xbuild.record import HostPath

WAIT = "echo kept >/root/kept; sync; echo there; sleep 60"


def tool(*argv: str, status: int | None = 0) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert status is None or done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def partition_of(image: HostPath, number: int, place: Path) -> str:
    """Copy a partition to a file of its own, for programs that take no offset."""
    part = next(p for p in read_table(image).partitions if p.number == number)
    with open(image, "rb") as file:
        file.seek(part.offset)
        (place / "partition").write_bytes(file.read(part.size))
    return str(place / "partition")


def put_back(image: HostPath, number: int, path: str) -> None:
    part = next(p for p in read_table(image).partitions if p.number == number)
    copy_sparse(path, image, part.offset)


def overwrite(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.fixture
def pi(tmp_path: Path) -> HostPath:
    fstab = "LABEL=BOOT /boot/firmware vfat defaults 0 2\n"
    return make_image(
        tmp_path / "pi.img",
        layout=[
            Part("boot", "vfat", 40 * MIB, {"config.txt": b"arm_64bit=1\n"}, options=("-F", "32")),
            Part("root", "ext4", SIZE, small_system(fstab, boot_firmware=None)),
        ],
    )


def test_fat_is_repaired_whoever_mounts_it(root: Runner, pi: HostPath, tmp_path: Path) -> None:
    overwrite(pi, MIB + 0x41, b"\x01")  # struct fat_boot_sector: not unmounted
    boot = partition_of(pi, 1, tmp_path)
    reserved = int.from_bytes(Path(boot).read_bytes()[14:16], "little")
    overwrite(pi, MIB + reserved * 512 + 400, b"\x12\x34\x56\x07")  # the first FAT alone
    tool("fsck.fat", "-n", partition_of(pi, 1, tmp_path), status=1)
    dry = root.output("--dry-run", "--fsck", pi, "true")
    assert re.search(r"check +partition 1 by \S+/fsck.fat -a\n", dry)
    tool("fsck.fat", "-n", partition_of(pi, 1, tmp_path), status=1)
    done = root.run("--fsck", pi, "true")
    assert done.returncode == 0, done.stderr
    assert any("partition 1 was not unmounted cleanly" in note for note in notes(done))
    assert any("it is repaired first" in note for note in notes(done))
    tool("fsck.fat", "-n", partition_of(pi, 1, tmp_path))
    assert_free(pi)


def test_dirty_fat_has_no_journal(root: Runner, pi: HostPath) -> None:
    overwrite(pi, MIB + 0x41, b"\x01")
    for options in ((), ("--ephemeral",)):
        done = root.run(*options, pi, "true")
        assert done.returncode == 0
        dirt = next(note for note in notes(done) if "not unmounted cleanly" in note)
        assert "journal" not in dirt


def test_ext4_that_the_kernel_refuses_is_repaired_first(root: Runner, tmp_path: Path) -> None:
    parts = [Part("root", "ext4", 192 * MIB, small_system())]
    image = make_image(tmp_path / "bad.img", layout=parts)
    overwrite(image, MIB + 4096, b"\xff" * 4096)  # group descriptors
    before = checksum(image)
    for options in ((), ("--fsck", "--dry-run"), ("--ephemeral",)):
        refused = root.run(*options, image, "true")
        assert refused.returncode == 125
        assert "--fsck" in refused.stderr
        assert checksum(image) == before
    done = root.run("--fsck", image, "cat", "/etc/fstab")
    assert done.returncode == 0, done.stderr
    assert "FILE SYSTEM WAS MODIFIED" in done.stderr
    tool("e2fsck", "-fn", f"{image}?offset={MIB}")
    assert root.run(image, "true").returncode == 0


@pytest.fixture
def xfs(tmp_path: Path) -> HostPath:
    image = make_image(tmp_path / "xfs.img", layout=[Part("root", "xfs", 320 * MIB)])
    (tmp_path / "tree").mkdir()
    make_tree(tmp_path / "tree", small_system())
    place = tmp_path / "mounted"
    place.mkdir()
    script = f"mount -o loop,offset={MIB} {image} {place}; cp -a {tmp_path}/tree/. {place}"
    tool("unshare", "-m", "sh", "-ec", script)
    assert_free(image)
    return image


def test_journal_of_an_xfs_is_replayed_before_it_is_repaired(
    root: Runner, xfs: HostPath, tmp_path: Path
) -> None:
    dirty = HostPath(str(tmp_path / "dirty.img"))
    script = WAIT.replace("sync;", "sync; rm /bin/touch; dd if=/dev/zero of=/root/z bs=1 count=1;")
    with running(lambda: root.spawn(xfs, "sh", "-c", script.replace("=1;", "=1 conv=fsync;"))):
        shutil.copyfile(xfs, dirty)
    said = tool("xfs_repair", partition_of(dirty, 1, tmp_path), status=2)
    assert "needs to\nbe replayed" in said
    done = root.run("--fsck", dirty, "cat", "/root/kept")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "kept\n"
    assert any("partition 1 was not unmounted cleanly" in note for note in notes(done))
    tool("xfs_repair", "-n", partition_of(dirty, 1, tmp_path))
    clean = root.run(dirty, "true")
    assert not any("unmounted cleanly" in note for note in notes(clean))


def test_damaged_xfs_is_repaired(root: Runner, xfs: HostPath, tmp_path: Path) -> None:
    part = partition_of(xfs, 1, tmp_path)
    tool("xfs_db", "-x", "-c", "agf 0", "-c", "write -d freeblks 5", part)
    tool("xfs_repair", "-n", part, status=1)
    put_back(xfs, 1, part)
    done = root.run("--fsck", xfs, "true")
    assert done.returncode == 0, done.stderr
    tool("xfs_repair", "-n", partition_of(xfs, 1, tmp_path))


@pytest.fixture
def btrfs(tmp_path: Path) -> HostPath:
    options = ("--metadata", "single")
    return make_image(
        tmp_path / "btrfs.img",
        layout=[Part("root", "btrfs", 256 * MIB, small_system(), options=options)],
    )


def test_sound_btrfs_is_checked(root: Runner, btrfs: HostPath) -> None:
    done = root.run("--fsck", btrfs, "true")
    assert done.returncode == 0, done.stderr
    assert "no error found" in done.stderr


def test_damaged_btrfs_is_not_touched_and_says_what_to_do(
    root: Runner, btrfs: HostPath, tmp_path: Path
) -> None:
    part = partition_of(btrfs, 1, tmp_path)
    tree = tool("btrfs", "inspect-internal", "dump-tree", "-t", "csum", part)
    found = re.search(r"(?:leaf|node) (\d+) ", tree)
    assert found is not None, tree
    content = Path(part).read_bytes()
    fsid = content[0x10020:0x10030]
    # A tree block begins with its checksum, the file system's id and its own logical address.
    at = content.index(fsid + int(found[1]).to_bytes(8, "little")) - 32
    overwrite(part, at + 200, b"\xff" * 64)
    put_back(btrfs, 1, part)
    before = checksum(btrfs)
    done = root.run("--fsck", btrfs, "true")
    assert done.returncode == 125
    assert "btrfs check found errors in partition 1" in done.stderr
    assert "btrfs restore" in done.stderr
    assert checksum(btrfs) == before
    assert_free(btrfs)


@pytest.mark.skipif("f2fs" in kernel_filesystems(), reason="this kernel mounts f2fs")
def test_f2fs_is_repaired_where_the_kernel_lacks_it(root: Runner, tmp_path: Path) -> None:
    fstab = "LABEL=data /srv f2fs defaults 0 2\n"
    image = make_image(
        tmp_path / "f2fs.img",
        layout=[Part("root", "ext4", SIZE, small_system(fstab, srv=None)), Part("", "", 96 * MIB)],
    )
    single = str(tmp_path / "single")
    with open(single, "wb") as file:
        file.truncate(96 * MIB)
    tool("mkfs.f2fs", "-q", "-l", "data", single)
    put_back(image, 2, single)
    at = Path(single).read_bytes().index(b"\x10\x20\xf5\xf2", 4096)  # the second superblock
    overwrite(image, read_table(image).partitions[1].offset + at + 100, b"\xff" * 64)
    done = root.run("--fsck", image, "true")
    assert done.returncode == 0, done.stderr
    assert any("this kernel has no f2fs" in note for note in notes(done))
    tool("fsck.f2fs", "--dry-run", partition_of(image, 2, tmp_path))
    assert "f2fs" in done.stderr


def test_what_needs_no_check_is_left_alone(root: Runner, tmp_path: Path) -> None:
    image = make_image(
        tmp_path / "s.img", layout=[Part("root", "squashfs", 16 * MIB, small_system())]
    )
    before = checksum(image)
    assert root.run("--fsck", image, "true").returncode == 0
    assert checksum(image) == before


def test_check_is_left_out_where_it_was_not_asked_for(root: Runner, pi: HostPath) -> None:
    assert "check " not in root.output("--dry-run", pi, "true")
    assert os.path.exists(pi)
