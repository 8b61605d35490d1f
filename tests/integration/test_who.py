"""``xbuild who`` and ``xbuild image release``: what holds a tree or an image, and letting it go."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.capability import require
from tests.disks import assert_free, one_filesystem, running
from tests.images import MIB
from tests.patience import PATIENCE_S
from tests.runs import Runner
from tests.users import User
from xbuild.image.attach import attach
from xbuild.record import HostPath

Xbuild = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def image(tmp_path: Path) -> HostPath:
    require("root", os.geteuid() == 0, "loop devices need root")
    return one_filesystem(tmp_path / "one.img", "ext4")


@pytest.fixture
def xbuild(xbuild_for: Callable[[User | None], list[str]]) -> Xbuild:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*xbuild_for(None), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S
        )

    return run


@pytest.fixture
def left_behind(image: HostPath) -> Iterator[str]:
    """A loop device without autoclear, as losetup makes it; its path."""
    command = ["losetup", "-f", "--show", "-o", str(MIB), "--sizelimit", str(64 * MIB), image]
    loop = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    yield loop
    subprocess.run(["losetup", "-d", loop], capture_output=True)
    assert_free(image)


def _uses(xbuild: Xbuild, path: str) -> list[dict[str, Any]]:
    document = json.loads(xbuild("who", "--json", path).stdout)
    assert document["schema"] == "xbuild.who/1"
    uses: list[dict[str, Any]] = document["uses"]
    return uses


def test_nothing_holds_a_fresh_tree(xbuild: Xbuild, tmp_path: Path) -> None:
    done = xbuild("who", str(tmp_path))
    assert done.returncode == 0
    assert done.stdout == f"nothing holds {tmp_path}\n"


def test_process_in_a_tree_is_named_with_a_hint(xbuild: Xbuild, tmp_path: Path) -> None:
    with running(lambda: _shell("echo there; exec sleep 60", cwd=str(tmp_path))) as process:
        use = next(u for u in _uses(xbuild, str(tmp_path)) if u["pid"] == process.pid)
    assert use["kind"] == "process"
    assert "works in it" in use["text"]
    assert use["hint"] == f"end it: kill {process.pid}"


def test_run_in_an_image_is_named(xbuild: Xbuild, root: Runner, image: HostPath) -> None:
    with running(lambda: root.spawn(image, "sh", "-c", "echo there; sleep 60")):
        uses = _uses(xbuild, image)
        released = xbuild("image", "release", "--yes", image)
    kinds = {use["kind"] for use in uses}
    assert {"lock", "loop", "mount"} <= kinds
    mount = next(use for use in uses if use["kind"] == "mount")
    assert mount["pid"]
    assert "in the mount namespace of" in mount["text"]
    assert released.returncode == 125
    assert "in use, not left behind" in released.stderr


def test_mount_in_another_namespace_is_found(
    xbuild: Xbuild, image: HostPath, tmp_path: Path
) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    script = (
        f"unshare -m sh -c 'mount -o loop,offset={MIB} {image} {place}; echo there; exec sleep 60'"
    )
    with running(lambda: _shell(f"exec {script}")):
        mounts = [use for use in _uses(xbuild, image) if use["kind"] == "mount"]
        done = xbuild("image", "release", "--yes", image)
        assert done.returncode == 125
    assert [use["place"] for use in mounts] == [str(place)]
    assert_free(image)


def test_loop_device_left_behind_is_shown_and_released(
    xbuild: Xbuild, root: Runner, image: HostPath, left_behind: str
) -> None:
    shown = xbuild("who", image).stdout
    assert f"{left_behind} shows {image}" in shown
    assert "stays until it is detached" in shown
    unasked = xbuild("image", "release", image)
    assert unasked.returncode == 2
    assert left_behind in unasked.stdout
    done = xbuild("image", "release", "--yes", image)
    assert done.returncode == 0, done.stderr
    assert_free(image)
    assert root.run(image, "true").returncode == 0


def test_loop_device_of_a_loop_device_counts(
    xbuild: Xbuild, image: HostPath, left_behind: str, tmp_path: Path
) -> None:
    """mount -o offset= of a block device makes one."""
    place = tmp_path / "mnt"
    place.mkdir()
    command = ["losetup", "-f", "--show", left_behind]
    upper = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    script = f"mount {upper} {place}; echo there; exec sleep 60"
    with running(lambda: _shell(f"exec unshare -m sh -c '{script}'")):
        uses = [(use["kind"], use["place"]) for use in _uses(xbuild, image)]
    assert [use for use in uses if use[0] != "process"] == [
        ("mount", str(place)),
        ("loop", upper),
        ("loop", left_behind),
    ]
    assert xbuild("image", "release", "--yes", image).returncode == 0
    assert_free(image)


def test_image_in_a_tree_counts(xbuild: Xbuild, image: HostPath, left_behind: str) -> None:
    uses = _uses(xbuild, os.path.dirname(image))
    assert left_behind in [use["place"] for use in uses]


def test_swap_on_an_image_is_found(xbuild: Xbuild, tmp_path: Path) -> None:
    require("root", os.geteuid() == 0, "swapon needs root")
    image = tmp_path / "swap.img"
    with image.open("wb") as file:
        file.write(bytes(8 * MIB))
    image.chmod(0o600)
    with attach(HostPath(str(image)), 0, 8 * MIB, read_only=False) as loop:
        subprocess.run(["mkswap", "-q", loop.path], check=True)
        subprocess.run(["swapon", loop.path], check=True)
        try:
            swap = next(u for u in _uses(xbuild, str(image)) if u["kind"] == "swap")
            assert swap["hint"] == f"swapoff {loop.path}"
        finally:
            subprocess.run(["swapoff", loop.path], check=True)


def test_release_takes_nothing_from_the_host(
    xbuild_for: Callable[[User | None], list[str]], image: HostPath, tmp_path: Path
) -> None:
    """What test_founding_bug.py shows to be lost by umount -R."""
    place = tmp_path / "mnt"
    place.mkdir()
    release = " ".join([*xbuild_for(None), "image", "release", "--yes", image])
    script = f"""\
mount --make-rshared /
mount -o loop,offset={MIB} {image} {place}
mount --rbind /dev {place}/dev
{release} >&2
test $(stat -c %d /dev/pts) = $(stat -c %d /dev) && echo lost || echo kept
"""
    unshare = ["unshare", "-m", "--propagation", "private", "sh", "-ec", script]
    done = subprocess.run(unshare, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout == "kept\n", done.stderr
    assert_free(image)


def test_missing_path_is_an_error(xbuild: Xbuild, tmp_path: Path) -> None:
    assert xbuild("who", str(tmp_path / "none")).returncode == 125


def _shell(script: str, cwd: str | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, cwd=cwd)
