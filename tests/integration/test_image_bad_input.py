"""Images that are damaged, absurd or hostile, as people meet them: through the command line.

Each ends in one error that says what is wrong, or in an answer that does; nothing is written.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.capability import require
from tests.disks import SIZE, checksum, small_system
from tests.images import MIB, Part, make_image
from tests.patience import WORK_S
from tests.users import User
from xbuild.record import HostPath

Result = subprocess.CompletedProcess[str]
Xbuild = Callable[..., Result]
Maker = Callable[[Path], HostPath]

ENTRY = 446  # of the MBR's first partition; 16 bytes each


@pytest.fixture
def xbuild(xbuild_for: Callable[[User | None], list[str]]) -> Xbuild:
    def run(*arguments: str) -> Result:
        return subprocess.run(
            [*xbuild_for(None), *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=WORK_S,
        )

    return run


def plain(place: Path) -> HostPath:
    parts = [Part("root", "ext4", SIZE, small_system()), Part("more", "ext4", 8 * MIB)]
    return make_image(place / "bad.img", layout=parts)


def overwrite(image: HostPath, offset: int, data: bytes) -> HostPath:
    with open(image, "r+b") as file:
        file.seek(offset)
        file.write(data)
    return image


def number_at(image: HostPath, offset: int) -> int:
    with open(image, "rb") as file:
        file.seek(offset)
        return int.from_bytes(file.read(4), "little")


def shorter_than_its_mbr(place: Path) -> HostPath:
    image = plain(place)
    os.truncate(image, SIZE // 2)
    return image


def shorter_than_its_gpt(place: Path) -> HostPath:
    parts = [Part("root", "ext4", SIZE, small_system())]
    image = make_image(place / "bad.img", table="gpt", layout=parts)
    os.truncate(image, SIZE // 2)
    return image


def overlapping(place: Path) -> HostPath:
    image = plain(place)
    start = number_at(image, ENTRY + 16 + 8)
    return overwrite(image, ENTRY + 16 + 8, struct.pack("<I", start - 2048))


def cycle_of_logical_partitions(place: Path) -> HostPath:
    parts = [
        Part("root", "ext4", SIZE, small_system()),
        Part("", "extended", 20 * MIB),
        Part("five", "", 8 * MIB),
        Part("six", "", 8 * MIB),
    ]
    image = make_image(place / "bad.img", layout=parts)
    extended = number_at(image, ENTRY + 16 + 8)
    second = number_at(image, extended * 512 + ENTRY + 16 + 8)
    back = struct.pack("<B3sB3sII", 0, bytes(3), 5, bytes(3), 0, 4096)
    return overwrite(image, (extended + second) * 512 + ENTRY + 16, back)


def larger_file_system_than_its_partition(place: Path) -> HostPath:
    return overwrite(plain(place), ENTRY + 12, struct.pack("<I", SIZE // 2 // 512))


def corrupt_superblock(place: Path) -> HostPath:
    return overwrite(plain(place), MIB + 1024, b"\xff" * 1024)


def corrupt_superblock_with_a_backup(place: Path) -> HostPath:
    parts = [Part("root", "ext4", 160 * MIB, small_system())]
    image = make_image(place / "bad.img", layout=parts)
    return overwrite(image, MIB + 1024, bytes(1024))


def empty(place: Path) -> HostPath:
    (place / "bad.img").touch()
    return HostPath(str(place / "bad.img"))


def damaged_gpt(place: Path) -> HostPath:
    parts = [Part("root", "ext4", SIZE, small_system())]
    image = make_image(place / "bad.img", table="gpt", layout=parts)
    for header in (512, os.path.getsize(image) - 512):
        overwrite(image, header + 16, b"\xff\xff\xff\xff")
    return image


def lying_at_the_end(place: Path) -> HostPath:
    image = make_image(place / "bad.img", layout=[Part("root", "ext4", SIZE, small_system())])
    return overwrite(image, ENTRY + 12, struct.pack("<I", SIZE // 2 // 512))


# Each with what a run says, and inspect, which shows what can be shown.
CASES: list[tuple[Maker, str, str]] = [
    (shorter_than_its_mbr, "is cut off", "is cut off"),
    (shorter_than_its_gpt, "is cut off", "is cut off"),
    (overlapping, "Partitions 1 and 2 of", "Partitions 1 and 2 of"),
    (cycle_of_logical_partitions, "lead back to one another", "lead back to one another"),
    (larger_file_system_than_its_partition, "its partition has", "its partition has"),
    (lying_at_the_end, "its partition has", "its partition has"),
    (corrupt_superblock, "no root filesystem", "no root"),
    (corrupt_superblock_with_a_backup, "a backup is in block 32768", "e2fsck -b 32768"),
    (empty, "is an empty file", "is an empty file"),
    (damaged_gpt, "is damaged", "is damaged"),
]


@pytest.mark.parametrize(("make", "said", "shown"), CASES)
def test_bad_image(xbuild: Xbuild, tmp_path: Path, make: Maker, said: str, shown: str) -> None:
    require("root", os.geteuid() == 0, "images are run in by root")
    image = make(tmp_path)
    before = checksum(image)
    for options in ((), ("--ephemeral",), ("--read-only",), ("--dry-run",)):
        done = xbuild("run", *options, image, "true")
        assert (done.returncode, done.stdout) == (125, ""), done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    looked = xbuild("inspect", image)
    assert looked.returncode in (0, 125)
    assert shown in looked.stdout + looked.stderr
    assert "Traceback" not in looked.stderr
    assert checksum(image) == before


@pytest.mark.parametrize("verb", [("grow", "+16M"), ("shrink",)])
@pytest.mark.parametrize(
    "make",
    [
        shorter_than_its_mbr,
        shorter_than_its_gpt,
        overlapping,
        cycle_of_logical_partitions,
        lying_at_the_end,
        corrupt_superblock_with_a_backup,
        damaged_gpt,
        empty,
    ],
)
def test_bad_image_is_not_resized(
    xbuild: Xbuild, tmp_path: Path, make: Maker, verb: tuple[str, ...]
) -> None:
    image = make(tmp_path)
    before = checksum(image)
    name, *size = verb
    done = xbuild("image", name, image, *size)
    assert done.returncode == 125, done.stdout
    assert done.stderr.startswith("xbuild: ")
    assert "Traceback" not in done.stderr
    assert checksum(image) == before
    assert os.listdir(tmp_path) == ["bad.img"]


@pytest.mark.parametrize(
    "make",
    [
        shorter_than_its_mbr,
        shorter_than_its_gpt,
        overlapping,
        cycle_of_logical_partitions,
        damaged_gpt,
        empty,
    ],
)
def test_bad_table_is_neither_packed_nor_flashed(
    xbuild: Xbuild, tmp_path: Path, make: Maker
) -> None:
    image = make(tmp_path)
    device = tmp_path / "device"
    device.write_bytes(b"\xa5" * (128 * MIB))
    for words in (("pack", image), ("flash", "--yes", image, str(device))):
        done = xbuild("image", *words)
        assert done.returncode == 125, done.stdout
        assert "Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["bad.img", "device"]
    assert not device.read_bytes().strip(b"\xa5")


@pytest.mark.parametrize("make", [shorter_than_its_mbr, shorter_than_its_gpt])
def test_compressed_image_that_was_cut_before_is_not_made_bootable(
    xbuild: Xbuild, tmp_path: Path, make: Maker
) -> None:
    image = make(tmp_path)
    subprocess.run(["gzip", "-1", image], check=True)
    device = tmp_path / "device"
    device.write_bytes(b"\xa5" * (128 * MIB))
    done = xbuild("image", "flash", "--yes", f"{image}.gz", str(device))
    assert done.returncode == 125
    assert "is cut off" in done.stderr
    assert f"hint: {device} is not bootable now" in done.stderr
    with device.open("rb") as file:
        assert not file.read(MIB).strip(b"\0")


def test_full_disk_below_an_image(xbuild: Xbuild, tmp_path: Path) -> None:
    """Reading needs no room beside it; a run, pack and resize: tests of their own."""
    require("root", os.geteuid() == 0, "mounting needs root")
    image = plain(tmp_path)
    small = tmp_path / "small"
    small.mkdir()
    script = (
        f"mount -t tmpfs -o size=24m t {small}; cp --sparse=always {image} {small};"
        f" dd if=/dev/zero of={small}/filler bs=64k 2>/dev/null; cd {small};"
        ' "$@" inspect bad.img; "$@" run --ephemeral bad.img true; echo status $?'
    )
    command = xbuild("--version").args[:-1]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command], capture_output=True, text=True
    )
    assert "root in 1" in done.stdout, done.stderr
    assert done.stdout.endswith("status 0\n"), done.stderr


def test_image_on_a_file_system_without_holes_runs(xbuild: Xbuild, tmp_path: Path) -> None:
    require("root", os.geteuid() == 0, "mounting needs root")
    image = plain(tmp_path)
    place = tmp_path / "ramfs"
    place.mkdir()
    script = (
        f"mount -t ramfs t {place}; cp {image} {place}; cd {place};"
        ' "$@" run bad.img sh -c "echo one >/root/one";'
        ' "$@" run --read-only bad.img cat /root/one; "$@" image grow bad.img +8M; echo $?'
    )
    command = xbuild("--version").args[:-1]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command], capture_output=True, text=True
    )
    assert done.stdout.startswith("one\n"), done.stderr
    assert done.stdout.endswith("\n0\n"), done.stderr


def test_symlinked_image_is_followed_by_every_verb(xbuild: Xbuild, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    image = plain(tmp_path / "real")
    link = tmp_path / "link.img"
    link.symlink_to("real/bad.img")
    assert "root in 1" in xbuild("inspect", str(link)).stdout
    if os.geteuid() == 0:
        assert xbuild("run", str(link), "true").returncode == 0
    assert xbuild("image", "grow", str(link), "+8M").returncode == 0
    assert xbuild("image", "shrink", str(link)).returncode == 0
    assert xbuild("who", str(link)).stdout == f"nothing holds {image}\n"
    assert xbuild("image", "pack", str(link), "-o", f"{tmp_path}/packed.img").returncode == 0
    with open(tmp_path / "device", "wb") as file:
        file.truncate(128 * MIB)
    done = xbuild("image", "flash", "--yes", str(link), f"{tmp_path}/device")
    assert done.returncode == 0, done.stderr
    assert link.is_symlink()
    loop = tmp_path / "loop.img"
    loop.symlink_to("loop.img")
    for words in (("inspect", str(loop)), ("run", str(loop)), ("image", "shrink", str(loop))):
        done = xbuild(*words)
        assert done.returncode == 125
        assert "Traceback" not in done.stderr
