"""What ``xbuild image flash`` refuses, on real devices and through the command line.

Partitions of loop devices are made by BLKPG (addpart(8)), which needs no partition parser.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.capability import require
from tests.disks import assert_free
from tests.images import MIB, Part, make_image
from tests.users import User
from xbuild.image.device import Device
from xbuild.image.occupation import read_occupation
from xbuild.record import HostPath

Flash = Callable[..., subprocess.CompletedProcess[str]]
ZRAM = "/sys/class/zram-control"


def output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout.strip()


@pytest.fixture
def image(tmp_path: Path) -> HostPath:
    layout = [Part("boot", "vfat", 16 * MIB), Part("root", "ext4", 16 * MIB)]
    return make_image(tmp_path / "card.img", layout=layout)


@pytest.fixture
def flash(xbuild_for: Callable[[User | None], list[str]], image: HostPath) -> Flash:
    def run(
        device: str, *options: str, before: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        command = [*before, *xbuild_for(None), "image", "flash", "--yes", *options, image, device]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    return run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A loop device with one partition, an ext4, as /dev/loopN and /dev/loopNp1."""
    require("root", os.geteuid() == 0, "loop devices need root")
    path = make_image(tmp_path / "disk.img", layout=[Part("data", "ext4", 48 * MIB)])
    loop = output("losetup", "--find", "--show", "--partscan", path)
    try:
        if not os.path.exists(f"{loop}p1"):
            output("addpart", loop, "1", str(MIB // 512), str(48 * MIB // 512))
        yield loop
        subprocess.run(["delpart", loop, "1"], check=False, capture_output=True)
    finally:
        output("losetup", "--detach", loop)
        assert_free(path)


def assert_refused(done: subprocess.CompletedProcess[str], words: str, hint: str) -> None:
    assert done.returncode == 125, done.stdout
    assert words in done.stderr
    assert hint in done.stderr.partition("hint: ")[2]


def test_partition_where_a_disk_is_meant(flash: Flash, disk: str) -> None:
    before = Path(f"{disk}p1").read_bytes()
    for options in ((), ("--force",)):
        assert_refused(flash(f"{disk}p1", *options), "is a partition", f"whole disk: {disk}")
    assert Path(f"{disk}p1").read_bytes() == before


def test_disk_with_a_mounted_partition(flash: Flash, disk: str, tmp_path: Path) -> None:
    """In the mount namespace that xbuild is in, which is the test's own; and in another one."""
    place = tmp_path / "mounted"
    place.mkdir()
    script = f"mount {disk}p1 {place} && echo mounted"
    said = f"{os.path.basename(disk)}p1 is mounted on {place}"
    here = flash(disk, "--force", before=("unshare", "-m", "sh", "-c", f'{script}; "$@"', "sh"))
    assert_refused(here, said, "unmount it first")
    assert "in another mount namespace" not in here.stderr
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"{script} && read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mounted\n"
        done = flash(disk, "--force")
        other.communicate("\n")
    said = f"{said} for sh ({other.pid}), in another mount namespace"
    assert_refused(done, said, "unmount it first")


def test_disk_with_swap_on_a_partition(flash: Flash, disk: str) -> None:
    output("mkswap", f"{disk}p1")
    done = subprocess.run(["swapon", f"{disk}p1"], capture_output=True)
    require("swap", done.returncode == 0, "swapon is refused here")
    try:
        assert_refused(flash(disk), "p1 is in use as swap", "swapoff it first")
    finally:
        output("swapoff", f"{disk}p1")


def test_disk_with_an_active_holder(tmp_path: Path) -> None:
    """Where the kernel has no device-mapper: the directory that it would fill."""
    (tmp_path / "holders" / "dm-987").mkdir(parents=True)
    device = Device(HostPath("/dev/sdx"), "disk", 1, 1 << 30, node=str(tmp_path))
    found = read_occupation(device).holders
    assert found == (f"{tmp_path.name} is part of the array or volume dm-987",)


def test_disk_of_the_running_system(
    xbuild_for: Callable[[User | None], list[str]],
    ordinary_user: User,
    reachable_directory: HostPath,
) -> None:
    """As a user who could not write to it if this were to fail."""
    number = os.stat("/").st_dev
    node = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    require("disk", os.path.isdir(node), "the root file system is on no block device")
    disk = os.path.dirname(node) if os.path.exists(f"{node}/partition") else node
    image = make_image(f"{reachable_directory}/card.img", layout=[Part("", "", MIB)])
    os.chmod(image, 0o644)
    words = ["image", "flash", "--yes", "--force", image, f"/dev/{os.path.basename(disk)}"]
    done = ordinary_user.run([*xbuild_for(ordinary_user), *words])
    assert_refused(done, "is the disk of the running system", "lsblk")


@pytest.mark.alone
def test_disk_that_is_not_removable(flash: Flash) -> None:
    """A zram is one."""
    require("root", os.geteuid() == 0, "a zram needs root")
    require("zram", os.path.exists(ZRAM), "this kernel has no zram")
    number = Path(f"{ZRAM}/hot_add").read_text().strip()
    try:
        Path(f"/sys/block/zram{number}/disksize").write_text(str(64 * MIB))
        device = f"/dev/zram{number}"
        assert_refused(flash(device), "is not removable", "--force if it is the right one")
        with open(device, "rb") as file:
            assert not any(file.read(MIB))
        done = flash(device, "--force")
        assert done.returncode == 0, done.stderr
        assert "written, verified" in done.stdout
        Path(f"/sys/block/zram{number}/reset").write_text("1")
        assert_refused(flash(device, "--force"), "has no medium", "insert the card")
    finally:
        Path(f"/sys/block/zram{number}/reset").write_text("1")
        Path(f"{ZRAM}/hot_remove").write_text(number)


def test_disk_that_is_too_small(flash: Flash, tmp_path: Path) -> None:
    require("root", os.geteuid() == 0, "loop devices need root")
    path = tmp_path / "small"
    path.write_bytes(b"\xa5" * (8 * MIB))
    loop = output("losetup", "--find", "--show", str(path))
    try:
        assert_refused(flash(loop), "is too small", "image shrink")
        assert not path.read_bytes().strip(b"\xa5")
    finally:
        output("losetup", "--detach", loop)
        assert_free(HostPath(str(path)))
