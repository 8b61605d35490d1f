"""``xbuild image flash`` as it is asked for: refusals by what is known, questions, what is said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.capability import require
from tests.cards import OLD, assert_holds, card_image, device_file
from tests.conftest import OpenTerminal
from tests.images import MIB
from tests.patience import PATIENCE_S
from tests.users import User
from xbuild.errors import DeviceRefused
from xbuild.image.device import Device, read_device
from xbuild.image.occupation import Occupation, read_occupation
from xbuild.image.target import refuse_unfit
from xbuild.record import HostPath

Xbuild = Callable[[User | None], list[str]]
DISK = Device(HostPath("/dev/sdx"), "disk", 1, 1 << 30)


@pytest.mark.parametrize(
    ("device", "occupation", "reason"),
    [
        (DISK, Occupation(is_system=True), "disk of the running system"),
        (Device(HostPath("/dev/sdx1"), "partition", 1, 1 << 30), Occupation(), "is a partition"),
        (DISK, Occupation(mounts=("sdx1 is mounted on /mnt",)), "sdx1 is mounted on /mnt"),
        (DISK, Occupation(swaps=("sdx2 is in use as swap",)), "in use as swap"),
        (DISK, Occupation(holders=("sdx1 is part of the LVM volume vg",)), "LVM volume"),
        (Device(HostPath("/dev/sdx"), "disk", 1, 0), Occupation(), "no medium"),
        (Device(HostPath("/dev/sdx"), "disk", 1, 9, is_read_only=True), Occupation(), "read-only"),
    ],
)
def test_reasons_that_force_does_not_override(
    device: Device, occupation: Occupation, reason: str
) -> None:
    with pytest.raises(DeviceRefused, match=reason):
        refuse_unfit(device, occupation, force=True)


def test_fixed_disk_needs_force() -> None:
    fixed = Device(HostPath("/dev/sdx"), "disk", 1, 1 << 30, is_removable=False)
    with pytest.raises(DeviceRefused, match="not removable"):
        refuse_unfit(fixed, Occupation(), force=False)
    refuse_unfit(fixed, Occupation(), force=True)
    refuse_unfit(DISK, Occupation(), force=False)


def test_disk_of_the_running_system_is_recognised() -> None:
    """By reading alone: nothing here opens it."""
    number = os.stat("/").st_dev
    node = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    require("disk", os.path.isdir(node), "the root file system is on no block device")
    disk = os.path.dirname(node) if os.path.exists(f"{node}/partition") else node
    device = read_device(HostPath(f"/dev/{os.path.basename(disk)}"))
    assert read_occupation(device).is_system


def test_no_question_without_a_terminal(tmp_path: Path, xbuild_for: Xbuild) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    command = [*xbuild_for(None), "image", "flash", image, device]
    done = subprocess.run(
        command, input="y\n", capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 125
    assert "--yes" in done.stderr
    assert Path(device).read_bytes() == OLD * 64 * MIB


def test_asks_on_a_terminal_after_showing_both(
    tmp_path: Path, xbuild_for: Xbuild, open_terminal: OpenTerminal
) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    command = [*xbuild_for(None), "image", "flash", image, device]
    session = open_terminal(command, dimensions=(24, 160))
    session.expect("regular file, 64.0 MiB")
    session.expect("on it now: nothing known")
    session.expect(r"\[y/N\]")
    session.sendline("n")
    session.expect_exact("\n")
    session.wait()
    assert session.exitstatus == 1
    assert Path(device).read_bytes() == OLD * 64 * MIB
    session = open_terminal(command, dimensions=(24, 160))
    session.expect(r"\[y/N\]")
    session.sendline("y")
    session.expect("verifying")
    session.expect("written, verified")
    session.wait()
    assert session.exitstatus == 0
    assert_holds(device, image)


def test_says_what_is_on_the_card_now(tmp_path: Path, xbuild_for: Xbuild) -> None:
    image, device = card_image(tmp_path, "gpt"), device_file(tmp_path)
    command = [*xbuild_for(None), "image", "flash", image, device, "--yes"]
    subprocess.run(command, check=True, capture_output=True)
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "on it now: GPT partition table" in again.stderr
    assert "on it now: 2: 32 MiB, ext4 'root'" in again.stderr
