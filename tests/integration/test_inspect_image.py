"""``xbuild inspect IMAGE`` as people run it: as root and not, on crafted and on real trees."""

from __future__ import annotations

import json
import lzma
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crafted import Layout, merged_usr
from tests.images import MIB, Spec, make_image
from tests.installation import CHECKOUT
from tests.integration.test_inspect import keys_of
from tests.patience import WORK_S
from tests.users import User
from xbuild.record import HostPath

Result = subprocess.CompletedProcess[str]
Inspect = Callable[..., Result]

FSTAB = b"LABEL=BOOTFS /boot/firmware vfat defaults 0 2\nLABEL=rootfs / ext4 noatime 0 1\n"
TREE: Layout = merged_usr("arm64", "/lib/ld-linux-aarch64.so.1") | {"etc/fstab": FSTAB}
PI: list[Spec] = [
    ("bootfs", "vfat", 8 * MIB, {"cmdline.txt": b"x"}),
    ("rootfs", "ext4", 16 * MIB, TREE),
]
ROWS = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


@pytest.fixture
def inspect(xbuild_for: Callable[[User | None], list[str]]) -> Inspect:
    """``inspect(TARGET, OPTIONS…)``: run it and return what it wrote."""

    def run(*arguments: str, user: User | None = None) -> Result:
        command = [*xbuild_for(user), "inspect", *arguments]
        if user is not None:
            return user.run(command, check=False)
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=WORK_S)

    return run


@pytest.fixture
def pi(tmp_path: Path) -> HostPath:
    return make_image(tmp_path / "pi.img", layout=PI)


def section(name: str) -> str:
    with open(f"{CHECKOUT}/docs/json.md", encoding="utf-8") as file:
        return file.read().split(f"## {name}")[1].split("\n## ")[0]


def test_the_first_line_and_the_partitions(inspect: Inspect, pi: HostPath) -> None:
    result = inspect(pi)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == (
        f"{pi}: image of 25.0 MiB, MBR, 2 partitions, root in 2: "
        "arm64 (AArch64, 64-bit little-endian), Debian GNU/Linux 12 (bookworm), glibc"
    )
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[2:5]] == [
        ["role", "at", "size", "file system", "label", "free", "mounted at"],
        ["1", "boot", "1.0 MiB", "8.0 MiB", "vfat", "BOOTFS", "8.0 MiB", "/boot/firmware"],
        ["2", "root", "9.0 MiB", "16.0 MiB", "ext4", "rootfs", lines[4].split("  ")[-2], "/"],
    ]
    assert "shell         /bin/sh" in lines


def test_an_ordinary_user_needs_no_root(
    inspect: Inspect, ordinary_user: User, reachable_directory: HostPath
) -> None:
    image = make_image(f"{reachable_directory}/readable.img", layout=PI)
    os.chmod(image, 0o644)
    result = inspect(image, "--json", user=ordinary_user)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["tree"]["architecture"]["name"] == "aarch64"
    os.unlink(image)


@pytest.mark.parametrize("architecture", ["armhf", "s390x"])
def test_a_real_debian_tree(
    inspect: Inspect,
    foreign_tree: Callable[..., HostPath],
    reachable_directory: HostPath,
    tmp_path: Path,
    architecture: str,
) -> None:
    tree = foreign_tree(architecture)
    layout: list[Spec] = [("boot", "vfat", 8 * MIB, None), ("rootfs", "ext4", 512 * MIB, tree)]
    image = make_image(f"{reachable_directory}/debian.img", table="gpt", layout=layout)
    try:
        in_image = json.loads(inspect(image, "--json").stdout)["tree"]
        in_tree = json.loads(inspect(tree, "--json").stdout)
        every = json.loads(inspect(image, "--json", "--full").stdout)["tree"]
    finally:
        os.unlink(image)
    same = ("architecture", "abi", "qemu", "libc", "loader", "distribution", "leading_program")
    assert {key: in_image[key] for key in same} == {key: in_tree[key] for key in same}
    counted = json.loads(inspect(tree, "--json", "--full").stdout)
    assert every["architectures"] == counted["architectures"]


def test_an_image_is_the_same_afterwards(inspect: Inspect, tmp_path: Path) -> None:
    layout: list[Spec] = [("a", "ext4", 16 * MIB, TREE), ("b", "btrfs", 128 * MIB, TREE)]
    image = Path(make_image(tmp_path / "image", layout=layout))
    before = image.read_bytes(), image.stat().st_mtime_ns
    inspect(str(image))
    assert (image.read_bytes(), image.stat().st_mtime_ns) == before


def test_a_compressed_image_says_that_it_is_read(inspect: Inspect, pi: HostPath) -> None:
    packed = f"{pi}.xz"
    Path(packed).write_bytes(lzma.compress(Path(pi).read_bytes(), preset=0))
    result = inspect(packed)
    assert (result.returncode, result.stderr) == (
        0, f"note: reading {packed} to look into it\n"
    )  # fmt: skip
    assert result.stdout.splitlines()[0].startswith(f"{packed}: image of 25.0 MiB in xz, MBR")


def test_a_compressed_image_cut_off(inspect: Inspect, pi: HostPath) -> None:
    packed = f"{pi}.xz"
    whole = lzma.compress(Path(pi).read_bytes(), preset=0)
    Path(packed).write_bytes(whole[: len(whole) // 2])
    result = inspect(packed)
    assert (result.returncode, result.stdout) == (125, "")
    assert "is cut off" in result.stderr


def test_two_roots_are_named_and_one_is_chosen(inspect: Inspect, tmp_path: Path) -> None:
    layout: list[Spec] = [("old", "ext4", 16 * MIB, TREE), ("new", "ext4", 16 * MIB, TREE)]
    image = make_image(tmp_path / "image", layout=layout)
    undecided = inspect(image)
    assert undecided.returncode == 0
    assert "more than one partition could be it: 1 (old, ext4) and 2 (new, ext4)" in (
        undecided.stdout
    )
    for wanted in ("2", "new"):
        assert ", root in 2: arm64" in inspect(image, "--partition", wanted).stdout
    wrong = inspect(image, "--partition", "other")
    assert (wrong.returncode, wrong.stdout) == (125, "")
    assert wrong.stderr == (
        f"xbuild: {image} has no partition other\nhint: it has 1 (old, ext4), 2 (new, ext4)\n"
    )


def test_partition_is_for_images(inspect: Inspect, tmp_path: Path) -> None:
    result = inspect(str(tmp_path), "--partition", "1")
    assert (result.returncode, result.stderr.splitlines()[0]) == (
        2, "xbuild: --partition is for images"
    )  # fmt: skip


def test_luks_is_shown_with_what_to_do(inspect: Inspect, tmp_path: Path) -> None:
    layout: list[Spec] = [("boot", "ext4", 8 * MIB, None), ("root", "luks", 4 * MIB, None)]
    result = inspect(make_image(tmp_path / "image", layout=layout))
    assert result.returncode == 0
    assert "partition 2  it is encrypted (LUKS)" in result.stdout
    assert "cryptsetup open /dev/loopXp2" in result.stdout
    image = make_image(tmp_path / "alone", table="none", layout=[("root", "luks", 4 * MIB, None)])
    assert "it is encrypted (LUKS)" in inspect(image).stdout


def test_qcow2_is_refused_with_the_command(inspect: Inspect, tmp_path: Path) -> None:
    (tmp_path / "disk.qcow2").write_bytes(b"QFI\xfb" + bytes(600))
    result = inspect(str(tmp_path / "disk.qcow2"))
    assert (result.returncode, result.stdout) == (125, "")
    assert f"hint: qemu-img convert -f qcow2 -O raw {tmp_path}/disk.qcow2" in result.stderr


def test_text_of_an_image_does_not_reach_the_terminal_raw(inspect: Inspect, tmp_path: Path) -> None:
    release = b'ID=x\nPRETTY_NAME="\x1b[31mred"\n'
    fstab = b"LABEL=\x1b[31m /a\x1b[32m ext4\n\xff\xfe /\xff ext4\n"
    tree: Layout = TREE | {"usr/lib/os-release": release, "etc/fstab": fstab}
    image = make_image(tmp_path / "image", layout=[("\x1b[33m", "ext4", 16 * MIB, tree)])
    for options in ((), ("--json",)):
        result = inspect(image, *options)
        assert (result.returncode, result.stderr) == (0, "")
        assert "\x1b" not in result.stdout


def test_damage_is_one_line_and_no_traceback(inspect: Inspect, pi: HostPath) -> None:
    os.truncate(pi, 9 * MIB)
    result = inspect(pi)
    assert (result.returncode, result.stdout) == (125, "")
    assert "is cut off: it has" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_documented_keys_are_those_emitted(inspect: Inspect, pi: HostPath) -> None:
    documented = ROWS.findall(section("xbuild.inspect-image/1"))
    emitted = json.loads(inspect(pi, "--json").stdout)
    inner = {f"tree.{key}" for key in ROWS.findall(section("xbuild.inspect/1"))}
    assert sorted(documented) == sorted(set(keys_of(emitted)) - inner)
    assert emitted["schema"] == "xbuild.inspect-image/1"


def test_the_documented_example_has_the_documented_keys() -> None:
    text = section("xbuild.inspect-image/1")
    example: dict[str, Any] = json.loads(re.findall(r"```json\n(.*?)```", text, re.DOTALL)[0])
    assert sorted(ROWS.findall(text)) == sorted(set(keys_of(example)))
