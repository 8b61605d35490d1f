"""``xbuild run IMAGE.gz`` as an ordinary user: unpacked as for root, and served through FUSE."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.disks import SIZE, checksum, small_system
from tests.fuse import fuse_user
from tests.images import MIB, Part, make_image
from tests.runs import Kind, Runner, notes
from xbuild.record import HostPath, replace


@pytest.fixture
def ranged(runner_of: Callable[[Kind], Runner]) -> Runner:
    runner = runner_of("range")
    return replace(runner, user=fuse_user(runner.user))


@pytest.fixture
def place(reachable_directory: str, ranged: Runner) -> Iterator[Path]:
    directory = Path(reachable_directory) / f"packed-{os.getpid()}"
    directory.mkdir(mode=0o755)
    os.chown(directory, ranged.user.uid, ranged.user.gid)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def packed(place: Path, tmp_path: Path, ranged: Runner) -> HostPath:
    fstab = "LABEL=home /home ext4 defaults 0 2\n"
    parts = [
        Part("root", "ext4", SIZE, small_system(fstab)),
        Part("home", "ext4", 16 * MIB, {"note": b"at home\n"}),
    ]
    raw = make_image(tmp_path / "one.img", layout=parts)
    path = place / "one.img.gz"
    path.write_bytes(gzip.compress(Path(raw).read_bytes(), 1))
    os.chown(path, ranged.user.uid, ranged.user.gid)
    return HostPath(str(path))


def test_run_alone_leaves_nothing(ranged: Runner, packed: HostPath) -> None:
    before = checksum(packed)
    script = "cat /home/note; echo x >/root/x; echo y >/home/y; cat /root/x /home/y"
    done = ranged.run("--ephemeral", packed, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "at home\nx\ny\n"
    assert any("for this run alone" in note for note in notes(done))
    assert checksum(packed) == before
    assert os.listdir(os.path.dirname(packed)) == ["one.img.gz"]


def test_changes_stay_in_what_it_was_unpacked_to(ranged: Runner, packed: HostPath) -> None:
    done = ranged.run(packed, "sh", "-c", "echo one >/root/one")
    assert done.returncode == 0, done.stderr
    made = packed.removesuffix(".gz")
    assert os.stat(made).st_uid == ranged.user.uid
    assert ranged.output("--read-only", made, "cat", "/root/one") == "one\n"


def test_directory_that_may_not_be_written(ranged: Runner, packed: HostPath) -> None:
    os.chown(os.path.dirname(packed), 0, 0)
    done = ranged.run(packed, "true")
    assert done.returncode == 125
    assert "Permission denied" in done.stderr
    assert "--ephemeral" in done.stderr
    assert ranged.run("--ephemeral", packed, "true").returncode == 0
