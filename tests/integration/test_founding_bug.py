"""The bug that this project began with: unmounting an image takes /dev/pts from the host.

Everything happens in a mount namespace of its own, whose mounts are shared among themselves as
systemd makes a host's. There, and only there, is something lost.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.capability import require
from tests.disks import assert_free, one_filesystem
from tests.images import MIB
from tests.patience import PATIENCE_S
from tests.runs import Runner
from xbuild.record import HostPath

_HOST = """\
mount --make-rprivate /
mount -t tmpfs host /dev
mkdir /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount --make-rshared /
{work}
for place in /dev/pts /dev/shm; do
    test $(stat -c %d $place) = $(stat -c %d /dev) && echo lost || echo kept
done
"""


@pytest.fixture
def image(tmp_path: Path) -> HostPath:
    return one_filesystem(tmp_path / "one.img", "ext4")


def _mounts_left(work: str) -> list[str]:
    require("root", os.geteuid() == 0, "mounting needs root")
    script = ["unshare", "-m", "sh", "-ec", _HOST.format(work=work)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-2:]


def test_classical_recipe_takes_the_hosts_terminals(image: HostPath, tmp_path: Path) -> None:
    from xbuild.image.attach import attach

    require("root", os.geteuid() == 0, "attaching needs root")
    place = tmp_path / "mnt"
    place.mkdir()
    with attach(image, MIB, 64 * MIB, read_only=False) as loop:
        node = os.stat(loop.path).st_rdev
        recipe = (
            f"mknod /dev/disk b {os.major(node)} {os.minor(node)}\nmount /dev/disk {place}\n"
            f"mount --rbind /dev {place}/dev\nchroot {place} /bin/true\numount -R {place}"
        )
        assert _mounts_left(recipe) == ["lost", "lost"]
    assert_free(image)


def test_xbuild_leaves_them(root: Runner, image: HostPath) -> None:
    devices = "mknod -m 666 /dev/null c 1 3\nmknod /dev/loop-control c 10 237\n"
    for number in range(16):
        devices += f"mknod /dev/loop{number} b 7 {number}\n"
    work = devices + " ".join(root.argv(image, "/bin/true"))
    assert _mounts_left(work) == ["kept", "kept"]
    assert_free(image)
