"""Working in an image as an ordinary user: programs serve it through FUSE."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.disks import SIZE, assert_free, checksum, pi_image, running, small_system
from tests.fuse import fuse_user
from tests.images import MIB, Part, make_image
from tests.runs import Kind, Runner, notes
from xbuild.record import HostPath, replace

FILESYSTEM = "offset=1048576"


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, reachable_directory: str) -> Iterator[Path]:
    """A directory for images, which every user can enter."""
    directory = Path(reachable_directory) / f"fuse-{os.getpid()}"
    directory.mkdir()
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def user_of(runner_of: Callable[[Kind], Runner]) -> Callable[..., Runner]:
    """``user_of("range", mode="600")``: xbuild as an ordinary user who may use FUSE."""

    def make(kind: Kind, **changes: object) -> Runner:
        runner = runner_of(kind)
        return replace(runner, user=fuse_user(runner.user, **changes))

    return make


@pytest.fixture
def ranged(user_of: Callable[..., Runner]) -> Runner:
    return user_of("range")


@pytest.fixture
def image(place: Path, ranged: Runner) -> HostPath:
    """The ranged user's image with one partition, an ext4."""
    return owned(make_image(place / "one.img", layout=[root_part()]), ranged)


def root_part(kind: str = "ext4") -> Part:
    return Part("root", kind, SIZE, small_system())


def owned(image: HostPath, runner: Runner) -> HostPath:
    os.chown(image, runner.user.uid, runner.user.gid)
    return image


def assert_sound(image: HostPath) -> None:
    check = ["e2fsck", "-fn", f"{image}?{FILESYSTEM}"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", ["range", "plain"])
def test_what_is_written_is_there_in_the_next_run(
    user_of: Callable[..., Runner], place: Path, kind: Kind
) -> None:
    runner = user_of(kind)
    image = owned(make_image(place / "rw.img", layout=[root_part()]), runner)
    assert runner.run(image, "sh", "-c", "echo kept >/root/file; exit 7").returncode == 7
    assert_free(image)
    assert_sound(image)
    assert runner.output(image, "cat", "/root/file") == "kept\n"


def test_ids_on_disk_are_those_inside(ranged: Runner, image: HostPath) -> None:
    ranged.output(image, "/bin/busybox", "chown", "5:6", "/etc/fstab")
    assert ranged.output(image, "stat", "-c", "%u:%g", "/etc/fstab") == "5:6\n"
    show = ["debugfs", "-R", "stat /etc/fstab", f"{image}?{FILESYSTEM}"]
    listed = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    assert "User:     5   Group:     6" in listed


def test_permissions_hold_for_other_users_inside(ranged: Runner, image: HostPath) -> None:
    ranged.output(image, "sh", "-c", "echo secret >/etc/secret; busybox chmod 600 /etc/secret")
    done = ranged.run("--user", "1000", image, "cat", "/etc/secret")
    assert (done.returncode, done.stdout) == (1, "")
    assert ranged.output("--user", "1000", image, "cat", "/etc/fstab") == ""


@pytest.mark.parametrize("option", ["--read-only", "--ephemeral"])
def test_image_is_left_alone(ranged: Runner, image: HostPath, option: str) -> None:
    before = checksum(image)
    done = ranged.run(option, image, "sh", "-c", "echo x >/root/file && cat /root/file")
    assert done.stdout == ("x\n" if option == "--ephemeral" else "")
    assert checksum(image) == before
    assert_free(image)


@pytest.mark.parametrize("option", ["--read-only", "--ephemeral"])
def test_image_that_may_not_be_written(
    user_of: Callable[..., Runner], place: Path, option: str
) -> None:
    image = make_image(place / "foreign.img", layout=[root_part()])  # root's, and readable
    assert user_of("range").output(option, image, "cat", "/etc/fstab") == ""


def test_journal_is_not_replayed_where_nothing_may_be_written(
    ranged: Runner, image: HostPath
) -> None:
    subprocess.run(
        ["debugfs", "-w", "-R", "feature needs_recovery", f"{image}?{FILESYSTEM}"],
        check=True,
        capture_output=True,
    )
    before = checksum(image)
    done = ranged.run("--read-only", image, "cat", "/etc/fstab")
    assert done.returncode == 0, done.stderr
    assert any("not unmounted cleanly" in note for note in notes(done))
    assert checksum(image) == before
    refused = ranged.run("--fsck", image, "true")
    assert refused.returncode == 125
    assert "its journal has to be replayed first" in refused.stderr
    assert "sudo xbuild run --fsck" in refused.stderr
    assert checksum(image) == before


def test_fsck_repairs_before(ranged: Runner, image: HostPath) -> None:
    subprocess.run(
        ["debugfs", "-w", "-R", "set_super_value state 2", f"{image}?{FILESYSTEM}"],
        check=True,
        capture_output=True,
    )
    done = ranged.run("--fsck", image, "cat", "/etc/fstab")
    assert done.returncode == 0, done.stderr
    assert any("has errors" in note for note in notes(done))
    assert "Pass 5" in done.stderr
    assert not any("has errors" in note for note in notes(ranged.run(image, "true")))


def test_squashfs(user_of: Callable[..., Runner], place: Path) -> None:
    runner = user_of("range")
    image = owned(make_image(place / "s.img", layout=[root_part("squashfs")]), runner)
    before = checksum(image)
    script = "echo more >/root/file; cat /root/file"
    assert runner.output("--ephemeral", image, "sh", "-c", script) == "more\n"
    assert runner.run(image, "touch", "/root/file").returncode == 1
    assert checksum(image) == before
    assert_free(image)


def test_partitions_of_fstab(user_of: Callable[..., Runner], place: Path) -> None:
    runner = user_of("range")
    image = owned(pi_image(place / "pi.img"), runner)
    script = "cat /home/pi/note; echo more >/home/pi/more; touch /boot/firmware/x"
    done = runner.run(image, "sh", "-c", script)
    assert done.stdout == "at home\n"
    assert any(note.startswith("/boot/firmware is left as it is") for note in notes(done))
    assert "Read-only file system" in done.stderr
    assert_free(image)
    assert runner.output("--read-only", image, "cat", "/home/pi/more") == "more\n"


def test_writer_excludes_and_readers_share(ranged: Runner, image: HostPath) -> None:
    wait = "echo there; sleep 60"
    with running(lambda: ranged.spawn(image, "sh", "-c", wait)):
        for option in ("--read-only", "--hostname=x"):
            refused = ranged.run(option, image, "true")
            assert refused.returncode == 125
            assert "is being" in refused.stderr
    assert_free(image)
    with running(lambda: ranged.spawn("--read-only", image, "sh", "-c", wait)):
        assert ranged.run("--ephemeral", image, "true").returncode == 0
        assert ranged.run(image, "true").returncode == 125
    assert_free(image)


def test_compressed_image(ranged: Runner, image: HostPath) -> None:
    packed = f"{image}.gz"
    with open(packed, "wb") as file:
        subprocess.run(["gzip", "-c", image], stdout=file, check=True)
    assert ranged.output("--ephemeral", packed, "cat", "/etc/fstab") == ""


def test_plan_shows_the_program(ranged: Runner, image: HostPath) -> None:
    text = ranged.output("--dry-run", image, "true")
    assert f"fuse2fs -f -s -o {FILESYSTEM}" in text
    assert text.index("serve") < text.index("fork") < text.index("root  ")
    assert_free(image)


def test_btrfs_is_refused_with_the_way_of_root(user_of: Callable[..., Runner], place: Path) -> None:
    runner = user_of("range")
    part = Part("root", "btrfs", 128 * MIB, small_system())
    image = owned(make_image(place / "b.img", layout=[part]), runner)
    done = runner.run(image, "true")
    assert done.returncode == 125
    assert "only the kernel reads btrfs here, and that needs root" in done.stderr


def test_missing_program_is_named(user_of: Callable[..., Runner], place: Path) -> None:
    runner = user_of("range", hidden=("/usr/bin/fuse2fs",))
    image = owned(make_image(place / "one.img", layout=[root_part()]), runner)
    done = runner.run(image, "true")
    assert done.returncode == 125
    assert "fuse2fs is not installed" in done.stderr
    assert "install" in done.stderr.partition("hint:")[2]


def test_device_that_may_not_be_opened(user_of: Callable[..., Runner], place: Path) -> None:
    runner = user_of("range", mode="600")
    image = owned(make_image(place / "one.img", layout=[root_part()]), runner)
    done = runner.run(image, "true")
    assert done.returncode == 125
    assert "/dev/fuse cannot be opened (Permission denied)" in done.stderr
    assert "chmod 666 /dev/fuse" in done.stderr


def test_program_that_cannot_serve_is_quoted(ranged: Runner, image: HostPath) -> None:
    show = ["dumpe2fs", f"{image}?{FILESYSTEM}"]
    text = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Inode bitmap at (\d+)", text)
    assert found is not None
    with open(image, "r+b") as file:  # no longer what its checksum says
        file.seek(MIB + int(found[1]) * 4096 + 100)
        file.write(b"\x55")
    done = ranged.run(image, "true")
    assert done.returncode == 125
    assert f"fuse2fs cannot serve partition 1 of {image}: " in done.stderr
    assert "Inode bitmap checksum does not match" in done.stderr
    assert_free(image)
    assert ranged.run("--fsck", image, "true").returncode == 0


def test_image_on_a_full_disk(ranged: Runner, image: HostPath, place: Path) -> None:
    disk = place / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=10m none "$1" && cp -p "$2" "$1/full.img" && shift 2 && "$@"; '
    script += f"e2fsck -fy '{disk}/full.img?{FILESYSTEM}'; exit $?"
    write = "dd if=/dev/zero of=/root/zeros bs=64k count=200; sync"
    run = ranged.user.argv(ranged.argv(f"{disk}/full.img", "sh", "-c", write))
    argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(disk), image]
    done = subprocess.run([*argv, *run], capture_output=True, text=True, check=False)
    assert f"written back to partition 1 of {disk}/full.img: it was left with errors" in done.stderr
    assert "is the disk that the image is on full" in done.stderr
    assert done.returncode == 1, done.stdout  # e2fsck corrected it
