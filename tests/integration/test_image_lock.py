"""Several runs on one image: readers share it, a writer has it alone, others are noticed."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from tests.disks import assert_free, one_filesystem, running
from tests.images import MIB
from tests.runs import Runner
from xbuild.errors import ImageBusy
from xbuild.image.attach import attach
from xbuild.image.lock import lock_image
from xbuild.record import HostPath

WAIT = "echo there; sleep 60"


@pytest.fixture
def image(tmp_path: Path) -> HostPath:
    return one_filesystem(tmp_path / "one.img", "ext4")


def test_readers_share(root: Runner, image: HostPath) -> None:
    with running(lambda: root.spawn("--ephemeral", image, "sh", "-c", WAIT)):
        assert root.run("--read-only", image, "true").returncode == 0
        assert root.run("--ephemeral", image, "true").returncode == 0


@pytest.mark.parametrize("mode", [(), ("--read-only",), ("--ephemeral",)])
def test_writer_excludes_and_is_named(root: Runner, image: HostPath, mode: tuple[str, ...]) -> None:
    with running(lambda: root.spawn(image, "sh", "-c", WAIT)) as writer:
        done = root.run(*mode, image, "true")
        assert done.returncode == 125
        children = Path(f"/proc/{writer.pid}/task/{writer.pid}/children").read_text().split()
        assert any(f"({pid})" in done.stderr for pid in children)


def test_reader_keeps_a_writer_out(root: Runner, image: HostPath) -> None:
    with running(lambda: root.spawn("--read-only", image, "sh", "-c", WAIT)):
        done = root.run(image, "true")
        assert done.returncode == 125
        assert "is being used by" in done.stderr


def test_next_writer_gets_it_at_once(root: Runner, image: HostPath) -> None:
    for _ in range(5):
        assert root.run(image, "true").returncode == 0


def test_lock_of_another_program_counts(root: Runner, image: HostPath) -> None:
    with open(image, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = root.run("--read-only", image, "true")
        assert f"({os.getpid()})" in done.stderr


def test_foreign_loop_device_is_refused(root: Runner, image: HostPath) -> None:
    with attach(image, MIB, 8 * MIB, read_only=False) as loop:
        for mode in ((), ("--read-only",)):
            done = root.run(*mode, image, "true")
            assert done.returncode == 125
            assert loop.path in done.stderr
            assert "xbuild image release" in done.stderr
    assert_free(image)


@pytest.mark.usefixtures("root")
def test_lock_lasts_as_long_as_the_loop_device(image: HostPath) -> None:
    with lock_image(image, exclusive=True) as lock:
        from xbuild.image.attach import attach_descriptor

        loop = attach_descriptor(lock.fd, image, MIB, 8 * MIB, read_only=False)
    with open(image, "rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    loop.close()
    assert_free(image)


@pytest.mark.usefixtures("root")
def test_mounted_block_device_is_not_written(image: HostPath, tmp_path: Path) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    with attach(image, MIB, 64 * MIB, read_only=False) as loop:
        keep = f"mount -o ro,noload {loop.path} {place} && echo there && exec sleep 60"
        command = ["unshare", "-m", "sh", "-c", keep]
        with running(lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True)):
            with pytest.raises(ImageBusy, match="mounted"):
                lock_image(loop.path, exclusive=True)
            lock_image(loop.path, exclusive=False).close()
