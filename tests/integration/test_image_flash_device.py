"""Flashing loop devices: who else has them, and what happens when they fail meanwhile."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.capability import require
from tests.images import MIB, Part, make_image
from xbuild.errors import DeviceFailed, DeviceRefused
from xbuild.image.device import read_device
from xbuild.image.flash import Progress, flash_image, propose_flash
from xbuild.image.pack import pack_image
from xbuild.image.table import read_table
from xbuild.image.target import OpenTarget
from xbuild.record import HostPath
from xbuild.sandbox.loop import attach_loop

LOOP_SET_CAPACITY = 0x4C07
NOISE = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(6 * MIB // 32))
SIZE = 64 * MIB
CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))

Attach = Callable[[str], HostPath]


@pytest.fixture
def attach() -> Iterator[Attach]:
    """Show a file as a loop device that vanishes when the test ends."""
    require("root", os.geteuid() == 0, "loop devices need root")
    descriptors = []

    def make(path: str, *, read_only: bool = False) -> HostPath:
        with open(path, "r+b") as file:
            loop = attach_loop(file.fileno(), 0, 0, read_only=read_only)
        descriptors.append(loop.fd)
        return HostPath(loop.path)

    yield make
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def image(tmp_path: Path) -> HostPath:
    layout = [Part("boot", "vfat", 16 * MIB), Part("root", "ext4", 32 * MIB, {"file": NOISE})]
    return make_image(tmp_path / "card.img", table="gpt", layout=layout)


@pytest.fixture
def backing(tmp_path: Path) -> str:
    path = tmp_path / "backing"
    with open(path, "wb") as file:
        for _ in range(SIZE // MIB):
            file.write(b"\xa5" * MIB)
    return str(path)


def assert_no_table(backing: str) -> None:
    with open(backing, "rb") as file:
        assert not file.read(MIB).strip(b"\0")


def test_writes_to_a_device(image: HostPath, backing: str, attach: Attach) -> None:
    device = attach(backing)
    packed = pack_image(image, HostPath(f"{image}.packed"))
    proposal = propose_flash(packed.image, device)
    assert proposal.device.kind == "loop"
    assert proposal.device.size == SIZE
    assert flash_image(proposal).verified == packed.mapped
    root = read_table(HostPath(backing)).partitions[1]
    subprocess.run(["e2fsck", "-fn", f"{backing}?offset={root.offset}"], check=True)


def test_goes_past_the_page_cache(backing: str, attach: Attach) -> None:
    with OpenTarget(read_device(attach(backing))) as target:
        assert target.is_direct
        assert fcntl.fcntl(target.fd, fcntl.F_GETFL) & os.O_DIRECT


def test_mounted_in_another_namespace_is_refused_and_said(
    tmp_path: Path, image: HostPath, attach: Attach
) -> None:
    plain = make_image(
        tmp_path / "fs.img", table="none", layout=[Part("data", "ext4", SIZE, {"file": b"x"})]
    )
    device = attach(plain)
    (tmp_path / "mnt").mkdir()
    script = 'mount "$1" "$2" && echo mounted && read line'
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script, "sh", device, f"{tmp_path}/mnt"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mounted\n"
        with pytest.raises(DeviceRefused, match="in another mount namespace") as refused:
            propose_flash(image, device)
        assert f"{tmp_path}/mnt" in refused.value.message
        other.communicate("\n")
    propose_flash(image, device)


def test_opened_by_another_is_refused(image: HostPath, backing: str, attach: Attach) -> None:
    device = attach(backing)
    proposal = propose_flash(image, device)
    other = os.open(device, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(DeviceRefused, match="in use"):
            flash_image(proposal)
    finally:
        os.close(other)


def test_swap_is_refused(tmp_path: Path, image: HostPath, attach: Attach) -> None:
    swap = tmp_path / "swap"
    swap.write_bytes(bytes(SIZE))
    swap.chmod(0o600)
    device = attach(str(swap))
    subprocess.run(["mkswap", device], check=True, capture_output=True)
    done = subprocess.run(["swapon", device], check=False, capture_output=True)
    require("swap", done.returncode == 0, "swapon is refused here")
    try:
        with pytest.raises(DeviceRefused, match="in use as swap"):
            propose_flash(image, device)
    finally:
        subprocess.run(["swapoff", device], check=True)


@pytest.mark.parametrize("name", ["card.img", os.fsdecode(b"caf\xe9.img")])
def test_loop_device_of_the_image_is_refused(name: str, image: HostPath, attach: Attach) -> None:
    image = HostPath(str(Path(image).rename(os.path.join(os.path.dirname(image), name))))
    before = Path(image).read_bytes()
    with pytest.raises(DeviceRefused, match="the image itself"):
        propose_flash(image, attach(image))
    assert Path(image).read_bytes() == before


def test_read_only_device_is_refused(image: HostPath, backing: str, attach: Attach) -> None:
    device = attach(backing)
    subprocess.run(["blockdev", "--setro", device], check=True)
    try:
        with pytest.raises(DeviceRefused, match="read-only"):
            propose_flash(image, device)
    finally:
        subprocess.run(["blockdev", "--setrw", device], check=True)


def test_other_medium_than_the_one_looked_at_is_refused(
    image: HostPath, backing: str, attach: Attach, tmp_path: Path
) -> None:
    proposal = propose_flash(image, attach(backing))
    fd = os.open(proposal.device.path, os.O_RDWR)
    os.truncate(backing, SIZE // 2)
    fcntl.ioctl(fd, LOOP_SET_CAPACITY)
    os.close(fd)
    with pytest.raises(DeviceFailed, match="smaller"):
        flash_image(proposal)
    assert Path(backing).read_bytes() == b"\xa5" * (SIZE // 2)


def test_device_that_shrinks_while_it_is_written(
    image: HostPath, backing: str, attach: Attach
) -> None:
    device = attach(backing)

    def shrink(progress: Progress) -> None:
        fd = os.open(device, os.O_RDONLY)
        os.truncate(backing, 8 * MIB)
        fcntl.ioctl(fd, LOOP_SET_CAPACITY)
        os.close(fd)

    with pytest.raises(DeviceFailed, match=r"Cannot write to|ends at|smaller"):
        flash_image(propose_flash(image, device), report=shrink)
    assert_no_table(backing)


def test_device_that_shrinks_behind_what_is_written(
    image: HostPath, backing: str, attach: Attach
) -> None:
    device = attach(backing)

    def shrink(progress: Progress) -> None:
        if progress.phase == "finish" and progress.done:
            fd = os.open(device, os.O_RDONLY)
            os.truncate(backing, SIZE - MIB)
            fcntl.ioctl(fd, LOOP_SET_CAPACITY)
            os.close(fd)

    with pytest.raises(DeviceFailed, match="smaller"):
        flash_image(propose_flash(image, device), report=shrink)
    assert_no_table(backing)


def in_private_mount(place: Path, mount: str, code: str, *arguments: str) -> str:
    """Run Python in a mount namespace of its own with a file system mounted at ``place``."""
    place.mkdir()
    script = f'mount {mount} none "$1" && exec "$2" -c "$3" "$1" "$4"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(place), sys.executable, code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": CHECKOUT},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FAULTY = """
import sys
from xbuild.errors import DeviceFailed
from xbuild.image.flash import flash_image, propose_flash
try:
    flash_image(propose_flash(sys.argv[1], sys.argv[2]))
except DeviceFailed as error:
    print("failed:", error.message)
"""


def test_device_that_fails_half_way(tmp_path: Path, image: HostPath) -> None:
    """A loop device on a tmpfs that is full: writes give EIO, as a dying card's do."""
    require("root", os.geteuid() == 0, "mounting needs root")
    code = (
        "import os, sys; sys.argv[1:] = [sys.argv[2], sys.argv[1]]\n"
        "from xbuild.sandbox.loop import attach_loop\n"
        "file = os.open(sys.argv[2] + '/backing', os.O_RDWR | os.O_CREAT)\n"
        "os.ftruncate(file, 64 << 20)\n"
        "loop = attach_loop(file, 0, 0, read_only=False)\n"
        "sys.argv[2] = loop.path\n" + FAULTY + "print(any(os.pread(file, 1 << 20, 0)))\n"
    )

    text = in_private_mount(tmp_path / "full", "-t tmpfs -o size=5m", code, image)
    assert "failed: Cannot write to /dev/loop" in text
    assert text.endswith("False\n")


def test_card_in_a_file_on_a_full_disk(tmp_path: Path, image: HostPath) -> None:
    require("root", os.geteuid() == 0, "mounting needs root")
    code = (
        "import os, sys; sys.argv[1:] = [sys.argv[2], sys.argv[1] + '/device']\n"
        "open(sys.argv[2], 'wb').truncate(64 << 20)\n" + FAULTY
    )
    text = in_private_mount(tmp_path / "full", "-t tmpfs -o size=5m", code, image)
    assert "failed: Cannot write to" in text
    assert "No space left" in text


def test_image_on_a_file_system_without_holes(tmp_path: Path, image: HostPath) -> None:
    require("root", os.geteuid() == 0, "mounting needs root")
    code = (
        "import os, shutil, sys\n"
        "from xbuild.image.flash import flash_image, propose_flash\n"
        "from xbuild.image.pack import pack_image\n"
        "place, image = sys.argv[1:]\n"
        "shutil.copyfile(image, place + '/card.img')\n"
        "open(place + '/device', 'wb').truncate(64 << 20)\n"
        "done = flash_image(propose_flash(place + '/card.img', place + '/device'))\n"
        "print(done.verified == os.path.getsize(image))\n"
        "pack_image(place + '/card.img', place + '/packed.img')\n"
        "done = flash_image(propose_flash(place + '/packed.img', place + '/device'))\n"
        "print(done.verified < os.path.getsize(image) / 2)\n"
    )
    text = in_private_mount(tmp_path / "ramfs", "-t ramfs", code, image)
    assert text == "True\nTrue\n"
