"""``--profile image``: a card's image with a preloaded library that ends every program."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from tests.disks import assert_free
from tests.fuse import fuse_user
from tests.images import MIB, Part, make_image
from tests.packages import write_apt_repository
from tests.runs import Runner, notes, write_program
from tests.trees import TreeStore
from xbuild.record import HostPath, replace

LIBRARY = "usr/lib/arm-linux-gnueabihf/libarmmem-v7l.so"
STATUS = 99
# mov r7, #248 (exit_group); mov r0, #99; svc 0
EXIT = struct.pack("<III", 0xE3A070F8, 0xE3A00000 | STATUS, 0xEF000000)
PACKAGES = ("dpkg", "init-system-helpers", "systemd-sysv", "passwd", "adduser")
FSTAB = "LABEL=root / ext4 defaults 0 1\nLABEL=BOOT /boot/firmware vfat defaults 0 2\n"


@pytest.fixture(scope="module")
def card(tree_store: TreeStore, tmp_path_factory: pytest.TempPathFactory) -> HostPath:
    """A Raspberry Pi's card, armhf, whose /etc/ld.so.preload breaks all its programs."""
    place = tmp_path_factory.mktemp("card")
    tree = tree_store.fresh("armhf", None, PACKAGES)
    write_deadly_library(tree)
    write_program(f"{tree}/etc/fstab", FSTAB, 0o644)
    os.makedirs(f"{tree}/boot/firmware")
    image = make_image(
        place / "pi.img",
        layout=[
            Part("boot", "vfat", 40 * MIB, {"config.txt": b"arm_64bit=0\n"}),
            Part("root", "ext4", 320 * MIB, tree),
        ],
    )
    shutil.rmtree(os.path.dirname(tree))
    return image


@pytest.fixture
def image(card: HostPath, tmp_path: Path) -> HostPath:
    copy = HostPath(str(tmp_path / "pi.img"))
    subprocess.run(["cp", "--sparse=always", card, copy], check=True)
    return copy


def write_deadly_library(tree: HostPath) -> None:
    """Have every dynamic program of an armhf tree load a library that ends it in its _init."""
    path = f"{tree}/{LIBRARY}"
    shutil.copyfile(f"{tree}/usr/lib/arm-linux-gnueabihf/libdl.so.2", path)
    with open(path, "r+b") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        (start,) = (tag.entry.d_val for tag in dynamic.iter_tags("DT_INIT"))
        file.seek(start)  # the first segment is mapped from the file's beginning
        file.write(EXIT)
    write_program(f"{tree}/etc/ld.so.preload", f"/{LIBRARY}\n", 0o644)


def test_without_it_nothing_runs(root: Runner, image: HostPath) -> None:
    done = root.run("--read-only", image, "true")
    assert done.returncode == STATUS, done.stderr


def test_programs_run_and_the_image_is_free_at_the_end(root: Runner, image: HostPath) -> None:
    done = root.run("--profile", "image", image, "sh", "-c", "uname -m; cat /etc/ld.so.preload")
    assert (done.returncode, done.stdout) == (0, "armv7l\n"), done.stderr
    assert [note for note in notes(done) if note.startswith("host untouched: ")]
    assert notes(done)[-1] == f"nothing holds {image}"
    assert_free(image)
    shown = root.run("--read-only", "--inaccessible", f"/{LIBRARY}", image, "true")
    assert "libarmmem" in shown.stderr  # the file that was covered is as it was


def test_covered_file_cannot_be_replaced(root: Runner, image: HostPath) -> None:
    script = "touch /etc/new; mv /etc/new /etc/ld.so.preload"
    done = root.run("--profile", "image", image, "sh", "-ec", script)
    assert (done.returncode, "Device or resource busy" in done.stderr) == (1, True)


def test_packages_are_installed_and_no_service_is_started(
    root: Runner, image: HostPath, tmp_path: Path
) -> None:
    repository = HostPath(str(tmp_path / "repository"))
    write_apt_repository(repository)
    script = "dpkg -i /mnt/svc_1.0_all.deb; id -un svc; ls /srv"
    words = ("--profile", "image", "--bind", f"{repository}:/mnt")
    done = root.run(*words, image, "sh", "-ec", script, timeout_s=120.0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == ["svc", "svc", "svc.log"]
    assert_free(image)
    again = root.output("--profile", "image", image, "cat", "/srv/svc/version")
    assert again == "1.0\n"


def test_without_root(ranged: Runner, image: HostPath, reachable_directory: HostPath) -> None:
    """Served through FUSE."""
    user = replace(ranged, user=fuse_user(ranged.user))
    place = HostPath(f"{reachable_directory}/pi-{os.getpid()}.img")
    shutil.move(image, place)
    os.chown(place, ranged.user.uid, ranged.user.gid)
    done = user.run("--profile", "image", place, "cat", "/etc/ld.so.preload", timeout_s=120.0)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert f"nothing holds {place}" in notes(done)
    os.remove(place)


def test_tree_without_a_preload_file(root: Runner) -> None:
    done = root.run("--profile", "image", root.tree("arm64"), "true")
    assert done.returncode == 0, done.stderr


def test_plan_shows_what_is_covered(root: Runner, image: HostPath) -> None:
    plan = root.output("--dry-run", "--profile", "image", image)
    assert "hide       /etc/ld.so.preload by an empty file" in plan
    assert "setting: inaccessible = -/etc/ld.so.preload (" in plan


def test_who_uses_the_image_is_named_at_the_end(root: Runner, image: HostPath) -> None:
    with open(image, "rb") as file, subprocess.Popen(["sleep", "60"], stdin=file) as other:
        done = root.run("--profile", "image", image, "true")
        other.kill()
    assert any(note.startswith("process ") and "sleep" in note for note in notes(done)), done.stderr
    assert any("hint: " in note for note in notes(done))
