"""``xbuild run IMAGE``: what is mounted where, what is written, and what is not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.certificates import certificate_among, differences
from tests.crafted import Layout, Link, make_tree
from tests.disks import (
    SIZE,
    assert_free,
    checksum,
    kernel_filesystems,
    one_filesystem,
    pi_image,
    running,
    small_system,
)
from tests.images import MIB, Part, make_image
from tests.runs import Runner, notes
from xbuild.errors import ImageBusy
from xbuild.image.run import plan_image_run
from xbuild.plan.request import Request
from xbuild.record import HostPath
from xbuild.sandbox.container import Container

WAIT = "echo there; sleep 60"


@pytest.fixture
def image(tmp_path: Path) -> HostPath:
    return pi_image(tmp_path / "pi.img")


def _is_sound(image: HostPath, offset: int) -> bool:
    done = subprocess.run(["e2fsck", "-fn", f"{image}?offset={offset}"], capture_output=True)
    return done.returncode == 0


def test_writes_stay_and_file_systems_are_clean(root: Runner, image: HostPath) -> None:
    root.output(image, "sh", "-c", "echo one >/root/one; echo two >/home/pi/two")
    assert root.output(image, "cat", "/root/one", "/home/pi/two") == "one\ntwo\n"
    assert_free(image)
    assert _is_sound(image, 41 * MIB)
    assert _is_sound(image, 41 * MIB + SIZE)


def test_fstab_says_what_is_mounted_where(root: Runner, image: HostPath) -> None:
    table = root.output(image, "cat", "/proc/self/mountinfo")
    mounts = {line.split()[4]: line.split()[2] for line in table.splitlines()}
    assert mounts["/"].startswith("7:")
    assert mounts["/home"].startswith("7:")
    assert mounts["/"] != mounts["/home"]
    assert root.output(image, "cat", "/home/pi/note") == "at home\n"


@pytest.mark.skipif("vfat" in kernel_filesystems(), reason="this kernel mounts vfat")
def test_missing_vfat_is_said_and_its_place_is_not_written(root: Runner, image: HostPath) -> None:
    done = root.run(image, "touch", "/boot/firmware/kernel")
    assert done.returncode == 1
    assert any("/boot/firmware is left read-only" in n and "vfat" in n for n in notes(done))


def test_ids_inside_are_those_on_disk(root: Runner, image: HostPath) -> None:
    assert root.output(image, "stat", "-c", "%u:%g", "/bin/busybox") == "0:0\n"


def test_dry_run_leaves_the_image_alone(root: Runner, image: HostPath) -> None:
    before = checksum(image), os.stat(image).st_mtime_ns
    plan = root.output("--dry-run", image, "/bin/true")
    assert (checksum(image), os.stat(image).st_mtime_ns) == before
    verbs = [line.split()[0] for line in plan.splitlines() if line.startswith("  ")]
    assert verbs.index("loop") < verbs.index("mount") < verbs.index("root")
    assert f"bind       /home <- partition 3 of {image}" in plan
    assert_free(image)


@pytest.mark.parametrize("option", ["--read-only", "--ephemeral"])
def test_image_is_not_written(root: Runner, image: HostPath, option: str) -> None:
    before = checksum(image)
    done = root.run(option, image, "sh", "-c", "cat /home/pi/note; echo x >/root/x && echo done")
    assert done.stdout == ("at home\n" if option == "--read-only" else "at home\ndone\n")
    assert checksum(image) == before
    assert_free(image)


def test_ephemeral_changes_of_every_partition_are_discarded(root: Runner, image: HostPath) -> None:
    before = checksum(image)
    script = "rm /home/pi/note && echo new >/home/pi/new && mkdir /home/more && ls /home /home/pi"
    done = root.run("--ephemeral", image, "sh", "-c", script)
    assert done.stdout.split() == ["/home:", "lost+found", "more", "pi", "/home/pi:", "new"] or (
        done.stdout.split() == ["/home:", "more", "pi", "/home/pi:", "new"]
    ), done.stderr
    assert checksum(image) == before
    assert root.output("--ephemeral", image, "ls", "/home/pi") == "note\n"
    plan = root.output("--dry-run", "--ephemeral", image)
    assert f"overlay    /home <- partition 3 of {image}" in plan
    nothing = root.run("--ephemeral", "--read-only", image, "touch", "/home/pi/new")
    assert nothing.returncode == 1


@pytest.mark.parametrize("option", ["--read-only", "--ephemeral"])
def test_dirty_image_is_not_written(
    root: Runner, image: HostPath, tmp_path: Path, option: str
) -> None:
    dirty = _dirty_copy(root, image, tmp_path)
    before = checksum(dirty)
    done = root.run(option, dirty, "/bin/true")
    assert done.returncode == 0, done.stderr
    assert any("not unmounted cleanly" in n for n in notes(done))
    assert checksum(dirty) == before


def test_dirty_journal_is_said_and_fsck_repairs(
    root: Runner, image: HostPath, tmp_path: Path
) -> None:
    dirty = _dirty_copy(root, image, tmp_path)
    plan = root.output("--dry-run", dirty, "true")
    assert "not unmounted cleanly, or has errors (ext4): its journal is replayed; --fsck" in plan
    done = root.run("--fsck", dirty, "cat", "/root/kept")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "kept\n"
    assert any("not unmounted cleanly" in n and "repaired first" in n for n in notes(done))
    assert "recovering journal" in done.stderr
    assert not notes(root.run(dirty, "/bin/true"))[0].startswith("partition")


def _dirty_copy(root: Runner, image: HostPath, tmp_path: Path) -> HostPath:
    copy = HostPath(str(tmp_path / "dirty.img"))
    script = "echo kept >/root/kept; sync; " + WAIT
    with running(lambda: root.spawn(image, "sh", "-c", script)):
        shutil.copyfile(image, copy)
    assert_free(image)
    return copy


def test_fsck_goes_with_writing_only(root: Runner, image: HostPath) -> None:
    assert root.run("--fsck", "--read-only", image, "/bin/true").returncode == 2


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4", "btrfs"])
def test_file_systems_that_are_written(root: Runner, tmp_path: Path, kind: str) -> None:
    size = 256 * MIB if kind == "btrfs" else SIZE
    image = one_filesystem(tmp_path / "one.img", kind, size)
    root.output(image, "sh", "-c", "echo here >/root/file")
    assert root.output("--read-only", image, "cat", "/root/file") == "here\n"
    assert root.output("--ephemeral", image, "cat", "/root/file") == "here\n"


@pytest.mark.parametrize("kind", ["squashfs", "erofs"])
def test_file_systems_that_are_never_written(root: Runner, tmp_path: Path, kind: str) -> None:
    image = one_filesystem(tmp_path / "one.img", kind)
    before = checksum(image)
    done = root.run(image, "sh", "-c", "echo x >/root/x")
    assert done.returncode == 1
    assert any(f"{kind} is always read-only" in note for note in notes(done))
    assert root.output("-x", image, "sh", "-c", "echo x >/root/x; cat /root/x") == "x\n"
    assert checksum(image) == before


def test_xfs(root: Runner, tmp_path: Path) -> None:
    image = make_image(tmp_path / "xfs.img", layout=[Part("root", "xfs", 320 * MIB)])
    _fill(image, "xfs", small_system(), tmp_path)
    root.output(image, "sh", "-c", "echo here >/root/file")
    assert root.output("--read-only", image, "cat", "/root/file") == "here\n"


def test_btrfs_subvolume(root: Runner, tmp_path: Path) -> None:
    image = one_filesystem(tmp_path / "btrfs.img", "btrfs", 256 * MIB)
    script = "btrfs -q subvolume snapshot {0} {0}/@ && rm {0}/etc/hosts && touch {0}/@/marked"
    _in_mounted(image, "btrfs", script, tmp_path)
    listed = root.output("--subvolume", "@", image, "ls", "/marked", "/etc/hosts")
    assert listed.split() == ["/etc/hosts", "/marked"]
    assert root.run(image, "ls", "/marked").returncode == 1
    _in_mounted(image, "btrfs", "btrfs subvolume set-default {0}/@", tmp_path / "again")
    assert root.output(image, "ls", "/marked") == "/marked\n"
    assert root.output("--ephemeral", image, "ls", "/marked") == "/marked\n"
    missing = root.run("--subvolume", "@x", image, "ls")
    assert missing.returncode == 125
    assert "no subvolume @x" in missing.stderr


def _fill(image: HostPath, kind: str, layout: Layout, tmp_path: Path) -> None:

    tree = tmp_path / "tree"
    tree.mkdir()
    make_tree(tree, layout)
    _in_mounted(image, kind, f"cp -a {tree}/. {{0}}", tmp_path)


def _in_mounted(image: HostPath, kind: str, script: str, tmp_path: Path) -> None:
    """Run a script on the mounted first partition, in a mount namespace of its own."""
    place = tmp_path / "mounted"
    place.mkdir(parents=True)
    options = f"loop,offset={MIB}"
    text = f"mount -t {kind} -o {options} {image} {place}\n{script.format(place)}\numount {place}"
    subprocess.run(["unshare", "-m", "sh", "-ec", text], check=True)
    assert_free(image)


@pytest.mark.parametrize(("kind", "word"), [("luks", "LUKS"), ("lvm", "LVM")])
def test_locked_away_roots_are_refused(root: Runner, tmp_path: Path, kind: str, word: str) -> None:
    image = make_image(tmp_path / "x.img", layout=[Part("root", kind, 16 * MIB)])
    done = root.run(image, "/bin/true")
    assert done.returncode == 125
    assert word in done.stderr
    assert "hint: " in done.stderr


def test_partition_is_chosen(root: Runner, tmp_path: Path) -> None:
    parts = [Part(label, "ext4", SIZE, small_system()) for label in ("left", "right")]
    image = make_image(tmp_path / "two.img", layout=parts)
    done = root.run(image, "/bin/true")
    assert done.returncode == 125
    assert "left" in done.stderr
    assert "right" in done.stderr
    assert root.run("--partition", "right", image, "/bin/true").returncode == 0
    assert root.run("--partition", "1", image, "/bin/true").returncode == 0


def test_image_options_are_for_images(root: Runner, tmp_path: Path) -> None:
    done = root.run("--partition", "1", str(tmp_path), "/bin/true")
    assert done.returncode == 2
    assert "is none" in done.stderr


def test_escaping_fstab_stays_inside(root: Runner, tmp_path: Path) -> None:
    fstab = "LABEL=home /../../out ext4 defaults 0 2\nLABEL=more /link/in ext4 defaults 0 2\nx\n"
    layout = small_system(fstab)

    layout["link"] = Link("../../../../tmp-of-host")
    layout["tmp-of-host/in"] = None
    parts = [
        Part("root", "ext4", SIZE, layout),
        Part("home", "ext4", 8 * MIB, {"a": b""}),
        Part("more", "ext4", 8 * MIB, {"b": b""}),
    ]
    image = make_image(tmp_path / "escape.img", layout=parts)
    done = root.run(image, "ls", "/tmp-of-host/in")
    assert done.returncode == 0, done.stderr
    assert "b\n" in done.stdout
    assert any("/../../out" in note for note in notes(done))


def test_missing_mount_point_is_made_in_the_container_alone(root: Runner, tmp_path: Path) -> None:
    fstab = "LABEL=data /srv/data ext4 defaults 0 2\n"
    parts = [
        Part("root", "ext4", SIZE, small_system(fstab)),
        Part("data", "ext4", 8 * MIB, {"b": b""}),
    ]
    image = make_image(tmp_path / "data.img", layout=parts)
    assert "b" in root.output(image, "ls", "/srv/data")
    assert root.run("--read-only", "--partition", "1", image, "ls", "/srv").returncode == 0


@pytest.mark.parametrize("options", [(), ("--as-pid1",)])
def test_failing_disk_is_reported(
    root: Runner, image: HostPath, tmp_path: Path, options: tuple[str, ...]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    size = os.stat(image).st_blocks * 512 + 4 * MIB
    write = "dd if=/dev/urandom of=/root/big bs=1M count=24 2>/dev/null; echo status $?"
    xbuild = " ".join(root.argv(*options, f"{small}/pi.img", "sh", "-c", f"'{write}'"))
    script = f"mount -t tmpfs -o size={size} t {small}; cp --sparse=always {image} {small}/pi.img\n"
    done = root.user.run(["unshare", "-m", "sh", "-ec", script + xbuild])
    assert done.returncode == 125, done.stdout + done.stderr
    assert "written back" in done.stderr


def test_image_that_changed_since_the_plan_is_refused(image: HostPath, root: Runner) -> None:
    plan = plan_image_run(Request(image, ("/bin/true",)), remember=False)
    os.utime(image)
    with pytest.raises(ImageBusy, match="has changed"):
        Container(plan).run()


def test_certificate_covers_an_image(
    root: Runner, image: HostPath, own_places: tuple[str, ...]
) -> None:
    done = root.run("--certify", image, "/bin/true")
    assert done.returncode == 0, done.stderr
    certificate = certificate_among(notes(done))
    assert differences(certificate, own_places) == []
    assert f"; {image} is free to unmount or flash" in certificate


def test_block_map_that_will_not_fit_is_said(root: Runner, image: HostPath) -> None:
    block_map = f"{image.removesuffix('.img')}.bmap"
    Path(block_map).write_text("")
    said = f"{block_map} will not fit any more: xbuild image pack makes a new one"
    assert said in notes(root.run(image, "true"))
    assert said not in notes(root.run("--ephemeral", image, "true"))


def test_symlinked_image(root: Runner, image: HostPath, tmp_path: Path) -> None:
    os.symlink("pi.img", tmp_path / "link.img")
    assert root.output(str(tmp_path / "link.img"), "cat", "/home/pi/note") == "at home\n"


def test_ordinary_user_is_told(ranged: Runner, reachable_directory: HostPath) -> None:
    image = pi_image(f"{reachable_directory}/user.img")
    os.chmod(image, 0o666)
    done = ranged.run(image, "/bin/true")
    assert done.returncode == 125
    assert "root" in done.stderr
