"""``--profile image``: a card's image with a preloaded library that ends every program."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from tests.certificates import certificate_among, differences
from tests.disks import assert_free
from tests.documented import commands, make_home, type_line
from tests.fuse import fuse_user
from tests.images import MIB, Part, make_image
from tests.installation import CHECKOUT
from tests.packages import take_for_configured, write_apt_repository
from tests.patience import WORK_S
from tests.runs import Runner, notes, write_program
from tests.trees import TreeStore
from xbuild.cli.merge import load_profile
from xbuild.plan.make import DEFAULT_PATH
from xbuild.record import HostPath, replace

LIBRARY = "usr/lib/arm-linux-gnueabihf/libarmmem-v7l.so"
STATUS = 99
# mov r7, #248 (exit_group); mov r0, #99; svc 0
EXIT = struct.pack("<III", 0xE3A070F8, 0xE3A00000 | STATUS, 0xEF000000)
PACKAGES = ("dpkg", "init-system-helpers", "systemd-sysv", "passwd", "adduser")
ACTIONS = "restart reload force-reload stop"
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


@pytest.fixture(scope="module")
def denying(tree_store: TreeStore) -> Iterator[HostPath]:
    """A tree with a policy-rc.d that allows everything, until the profile covers it."""
    tree = tree_store.fresh("arm64", None, ("init-system-helpers", "sysvinit-core"))
    write_program(f"{tree}/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 104\n")
    write_program(f"{tree}/etc/init.d/svc", "#!/bin/sh\necho svc $1\n")
    yield tree
    shutil.rmtree(os.path.dirname(tree))


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


def test_programs_run_and_the_image_is_free_at_the_end(
    root: Runner, image: HostPath, own_places: tuple[str, ...]
) -> None:
    done = root.run("--profile", "image", image, "sh", "-c", "uname -m; cat /etc/ld.so.preload")
    assert (done.returncode, done.stdout) == (0, "armv7l\n"), done.stderr
    assert differences(certificate_among(notes(done)), own_places) == []
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
    done = root.run(*words, image, "sh", "-ec", script, timeout_s=WORK_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == ["svc", "svc", "svc.log"]
    assert_free(image)
    again = root.output("--profile", "image", image, "cat", "/srv/svc/version")
    assert again == "1.0\n"


@pytest.mark.parametrize("init", ["systemd-sysv", "sysvinit-core"])
def test_no_script_of_a_service_is_run(
    root: Runner, fresh_tree: Callable[..., HostPath], tmp_path: Path, init: str
) -> None:
    """Without the profile it is, for what is no start: that needs no runlevel."""
    tree = fresh_tree(
        "arm64", None, ("apt", "dpkg", "init-system-helpers", init, "passwd", "adduser")
    )
    take_for_configured(tree)
    repository = HostPath(str(tmp_path / "repository"))
    write_apt_repository(repository)
    source = "deb [trusted=yes] file:/mnt ./\n"
    write_program(f"{tree}/etc/apt/sources.list.d/own.list", source, 0o644)
    words = ("--setenv", f"SVC_ACTIONS={ACTIONS}", "--bind", f"{repository}:/mnt")
    by_dpkg = "dpkg -i /mnt/svc_1.0_all.deb; cat /srv/svc.started || true"
    done = root.run(*words, "-x", tree, "sh", "-ec", by_dpkg, timeout_s=WORK_S)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "service force-reload")

    covered = ("--profile", "image", *words)
    by_apt = (
        "bash -lec 'apt-get -q update; apt-get -q -y install svc'; cat /srv/svc.started || true"
    )
    for script in (by_dpkg, by_apt):
        done = root.run(*covered, "-x", tree, "sh", "-ec", script, timeout_s=WORK_S)
        assert (done.returncode, "svc.started: No such file" in done.stderr) == (0, True), (
            done.stderr
        )
        said = done.stdout + done.stderr  # apt passes on what scripts say at its output
        assert "invoke-rc.d: policy-rc.d denied execution of force-reload." in said


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("svc start", 0, "policy-rc.d denied execution of start.\n"),
        (
            "--skip-systemd-native svc restart extra",
            0,
            "policy-rc.d denied execution of restart.\n",
        ),
        ("--quiet svc start", 0, ""),
        ("--disclose-deny svc start", 101, "policy-rc.d denied execution of start.\n"),
        ("--query svc start", 101, ""),
        ("svc status", 4, "policy-rc.d denied execution of status.\n"),
        ("--force svc start", 0, "svc start"),
        ("svc", 103, "syntax error: missing required parameter"),
    ],
)
def test_what_is_denied_ends_as_invoke_rc_d_has_it(
    root: Runner, denying: HostPath, words: str, status: int, said: str
) -> None:
    """Both say so: that of the tree, with a policy that denies, and the profile's."""
    for program in ("/usr/sbin/invoke-rc.d", "invoke-rc.d"):
        script = f"{program} {words}"
        done = root.run("--profile", "image", denying, "sh", "-c", script)
        assert done.returncode == status, done.stderr
        lines = done.stdout + done.stderr
        assert (f"invoke-rc.d: {said}" if said.endswith("\n") else said) in lines


def test_policy_of_the_image_is_covered_and_stays(root: Runner, denying: HostPath) -> None:
    script = "/usr/sbin/policy-rc.d; echo $?; echo >>/usr/sbin/policy-rc.d"
    done = root.run("--profile", "image", denying, "sh", "-c", script)
    assert (done.stdout, "Read-only file system" in done.stderr) == ("101\n", True)
    assert root.output(denying, "sh", "-c", script[:30]) == "104\n"


def test_path_is_the_usual_one_with_the_policy_first() -> None:
    said = dict(pair.split("=", 1) for pair in dict(load_profile("image").values)["setenv"])
    assert said["PATH"] == f"/run/xbuild/policies/bin:{DEFAULT_PATH}"
    assert (
        f'DPkg::Path "{said["PATH"]}";' in Path(CHECKOUT, "profiles/policies/apt.conf").read_text()
    )


def test_without_root(ranged: Runner, image: HostPath, reachable_directory: HostPath) -> None:
    """Served through FUSE."""
    user = replace(ranged, user=fuse_user(ranged.user))
    place = HostPath(f"{reachable_directory}/pi-{os.getpid()}.img")
    shutil.move(image, place)
    os.chown(place, ranged.user.uid, ranged.user.gid)
    done = user.run("--profile", "image", place, "cat", "/etc/ld.so.preload", timeout_s=WORK_S)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert f"nothing holds {place}" in notes(done)
    os.remove(place)


def test_tree_without_a_preload_file(root: Runner) -> None:
    done = root.run("--profile", "image", root.tree("arm64"), "true")
    assert done.returncode == 0, done.stderr


def test_walkthrough(root: Runner, image: HostPath, tmp_path: Path) -> None:
    """docs/walkthrough-image.md, command by command, with a card that is a file."""
    home = HostPath(str(tmp_path / "home"))
    os.mkdir(home)
    make_home(root, home)
    write_apt_repository(HostPath(f"{home}/files"))
    with open(f"{home}/card", "xb") as file:
        file.truncate(4 << 30)
    subprocess.run(["xz", "-0", "-T0", image], check=True)
    os.rename(f"{image}.xz", f"{home}/raspios.img.xz")
    text = Path(CHECKOUT, "docs/walkthrough-image.md").read_text(encoding="utf-8")
    typed = "dpkg -i /mnt/svc_1.0_all.deb\necho kiosk >/etc/hostname\nexit\n"
    for command in commands(text):
        line = command.removeprefix("sudo ").replace("/dev/sdX", "card")
        line = line.replace("image flash ", "image flash --yes ")
        if "run --profile image pi.img" in line:
            bound = "run --bind ~/files:/mnt --profile image pi.img"
            line = line.replace("run --profile image pi.img", bound)
            line = f"{line.partition('#')[0]} <<'END'\n{typed}END"
        done = type_line(root, home, line, cwd=home, timeout_s=WORK_S)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        if "--profile" in line:
            assert notes(done)[-1] == f"nothing holds {home}/pi.img"
    shown = root.output("--read-only", "--profile", "image", f"{home}/card", "cat", "/etc/hostname")
    assert shown == "kiosk\n"
    assert os.path.exists(f"{home}/pi.img.zst")


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
