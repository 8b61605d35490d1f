"""Flashing a regular file that stands for a card: what is written, checked, refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cards import (
    NOISE,
    OLD,
    assert_holds,
    assert_not_bootable,
    card_image,
    device_file,
    flash,
)
from tests.images import MIB, TableKind
from tests.patience import wait_for
from tests.users import User
from xbuild.errors import DamagedImage, DeviceFailed, DeviceRefused, UnsupportedImage
from xbuild.image.flash import Progress, propose_flash
from xbuild.image.pack import Compression, pack_image
from xbuild.image.table import read_table
from xbuild.record import HostPath

Xbuild = Callable[[User | None], list[str]]


@pytest.mark.parametrize("table", ["mbr", "gpt"])
def test_writes_what_is_data_and_nothing_else(tmp_path: Path, table: TableKind) -> None:
    image, device = card_image(tmp_path, table), device_file(tmp_path)
    done = flash(image, device)
    assert_holds(device, image)
    assert done.written == done.verified < 20 * MIB
    assert not done.rewritten
    with open(device, "rb") as file:
        assert file.read().count(OLD * 4096) > 5000  # holes were not written


def test_packed_image_makes_clean_file_systems_on_a_used_card(tmp_path: Path) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    packed = pack_image(image, HostPath(f"{image}.packed"))
    flash(packed.image, device)
    root = read_table(device).partitions[1]
    subprocess.run(["e2fsck", "-fn", f"{device}?offset={root.offset}"], check=True)
    boot = read_table(device).partitions[0]
    listed = subprocess.run(
        ["mdir", "-b", "-i", f"{device}@@{boot.offset}", "::/"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MTOOLSRC": "/dev/null"},
    )
    assert listed.stdout.split() == ["::/file"]


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": lambda data: bz2.compress(data, 1),
    ".xz": lambda data: lzma.compress(data, preset=0),
    ".zst": lambda data: (
        subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout
    ),
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_image_is_written_whole(tmp_path: Path, suffix: str) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    content = Path(image).read_bytes()
    packed = Path(image + suffix)
    packed.write_bytes(COMPRESSORS[suffix](content))
    done = flash(HostPath(str(packed)), device)
    assert Path(device).read_bytes()[: len(content)] == content
    assert done.written == len(content)


@pytest.mark.parametrize("compression", ["xz", "zstd"])
def test_block_map_beside_a_compressed_image_is_used(tmp_path: Path, compression: str) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    suffix = {"xz": ".xz", "zstd": ".zst"}[compression]
    kind: Compression = "xz" if compression == "xz" else "zstd"
    packed = pack_image(image, HostPath(image + suffix), compression=kind)
    done = flash(packed.image, device)
    assert done.written == packed.mapped
    root = read_table(device).partitions[1]
    subprocess.run(["e2fsck", "-fn", f"{device}?offset={root.offset}"], check=True)


def test_image_that_is_no_multiple_of_a_sector_is_written(tmp_path: Path) -> None:
    image, device = HostPath(str(tmp_path / "odd.img")), device_file(tmp_path, 10 * MIB + 77)
    Path(image).write_bytes(NOISE + b"tail" * 25)
    flash(image, device)
    assert Path(device).read_bytes()[: len(NOISE) + 100] == NOISE + b"tail" * 25
    exact = device_file(tmp_path, len(NOISE) + 100)
    flash(image, exact)
    assert Path(exact).read_bytes() == NOISE + b"tail" * 25


def test_beginning_is_written_last(tmp_path: Path) -> None:
    image, device = card_image(tmp_path, "gpt"), device_file(tmp_path)
    seen = []

    def look(progress: Progress) -> None:
        with open(device, "rb") as file:
            seen.append((progress.phase, any(file.read(MIB))))

    flash(image, device, report=look)
    assert {is_there for phase, is_there in seen if phase in ("write", "verify")} == {False}
    assert seen[-1] == ("finish", True)


@pytest.mark.parametrize("phase", ["write", "verify", "finish"])
def test_interrupted_in_any_phase_it_is_not_bootable(tmp_path: Path, phase: str) -> None:
    image, device = card_image(tmp_path, "gpt"), device_file(tmp_path)

    def interrupt(progress: Progress) -> None:
        if progress.phase == phase and progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flash(image, device, report=interrupt)
    assert_not_bootable(device)
    flash(image, device)
    assert_holds(device, image)


def test_killed_while_writing_it_is_not_bootable(tmp_path: Path) -> None:
    image, device = card_image(tmp_path, "gpt"), device_file(tmp_path)
    child = os.fork()
    if child == 0:
        flash(image, device, report=lambda p: os.kill(os.getpid(), signal.SIGKILL * (p.done > 0)))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert_not_bootable(device)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_says_what_is_left_and_how_to_go_on(
    tmp_path: Path, xbuild_for: Xbuild, number: signal.Signals
) -> None:
    image, device = HostPath(str(tmp_path / "big.img")), HostPath(str(tmp_path / "device"))
    with open(image, "wb") as file:
        for _ in range(40):
            file.write(NOISE)
    with open(device, "wb") as file:
        file.write(OLD * MIB)
        file.truncate(256 * MIB)
    command = [*xbuild_for(None), "image", "flash", image, device, "--yes"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: os.stat(device).st_blocks >= 8 * MIB // 512)
        process.send_signal(number)
        _, text = process.communicate()
    assert process.returncode == 128 + number
    assert "is not bootable now" in text
    assert f"xbuild image flash {image} {device}" in text
    assert_not_bootable(device)


class Corrupter:
    """Changes what is on the device at the beginning of given phases, as a bad card would."""

    def __init__(self, device: HostPath, offset: int, phases: tuple[str, ...]) -> None:
        self._device = device
        self._offset = offset
        self._phases = phases

    def __call__(self, progress: Progress) -> None:
        if progress.phase in self._phases and progress.done == 0:
            with open(self._device, "r+b") as file:
                file.seek(self._offset)
                file.write(b"?" * 100)


def in_file_of_root(image: HostPath) -> int:
    return read_table(image).partitions[1].offset + Path(image).read_bytes()[
        read_table(image).partitions[1].offset :
    ].find(NOISE[:4096])


@pytest.mark.parametrize("compressed", [False, True])
def test_bad_block_is_written_once_more(tmp_path: Path, compressed: bool) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    at = in_file_of_root(image)
    source = image
    if compressed:
        source = HostPath(f"{image}.gz")
        Path(source).write_bytes(gzip.compress(Path(image).read_bytes()))
    done = flash(source, device, report=Corrupter(device, at, ("verify",)))
    assert [e.offset <= at < e.end for e in done.rewritten] == [True]
    assert_holds(device, image)


def test_block_that_stays_bad_is_named_and_the_card_not_bootable(tmp_path: Path) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    at = in_file_of_root(image)
    with pytest.raises(DeviceFailed, match=r"bytes \d+-\d+") as failure:
        flash(image, device, report=Corrupter(device, at, ("verify", "rewrite")))
    found = re.search(r"bytes (\d+)-(\d+)", failure.value.message)
    assert found is not None
    assert int(found[1]) <= at <= int(found[2])
    assert_not_bootable(device)


def test_bad_beginning_is_written_once_more_or_taken_away(tmp_path: Path) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    done = flash(image, device, report=Corrupter(device, 0, ("finish",)))
    assert done.rewritten[0].offset == 0
    assert_holds(device, image)
    with pytest.raises(DeviceFailed):
        flash(image, device, report=Corrupter(device, 0, ("finish", "rewrite")))
    assert_not_bootable(device)


def test_without_verification_nothing_is_read_back(tmp_path: Path) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    phases = set()
    done = flash(image, device, verify=False, report=lambda p: phases.add(p.phase))
    assert phases == {"wipe", "write"}
    assert done.verified == 0
    assert_holds(device, image)


def test_image_changed_meanwhile_is_not_made_bootable(tmp_path: Path) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)

    def change(progress: Progress) -> None:
        if progress.done:
            with open(image, "r+b") as file:
                file.write(b"x")

    with pytest.raises(DamagedImage, match="changed by another program"):
        flash(image, device, report=change)
    assert_not_bootable(device)


def test_image_cut_meanwhile_is_not_made_bootable(tmp_path: Path) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)

    def cut(progress: Progress) -> None:
        os.truncate(image, 2 * MIB)

    with pytest.raises(DamagedImage):
        flash(image, device, report=cut)
    assert_not_bootable(device)


def test_image_that_differs_from_its_map_is_not_made_bootable(tmp_path: Path) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    packed = pack_image(image, HostPath(f"{image}.packed")).image
    at = in_file_of_root(packed)
    with open(packed, "r+b") as file:
        file.seek(at)
        file.write(b"?")
    with pytest.raises(DamagedImage, match="not what its block map says"):
        flash(packed, device)
    assert_not_bootable(device)


def test_damaged_map_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    old = Path(device).read_bytes()
    block_map = Path(pack_image(image, image).block_map)
    text = block_map.read_text()
    for damaged in (text.replace("0-", "1-", 1), text[: len(text) // 2], "", "<bmap/>"):
        block_map.write_text(damaged)
        with pytest.raises(DamagedImage, match="bmap is damaged"):
            flash(image, device)
    assert Path(device).read_bytes() == old


@pytest.mark.parametrize("suffix", [".xz", ".gz", ".zst"])
def test_cut_off_compressed_image_is_not_made_bootable(tmp_path: Path, suffix: str) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path)
    packed = Path(image + suffix)
    data = COMPRESSORS[suffix](Path(image).read_bytes())
    packed.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DamagedImage, match="damaged or cut off"):
        flash(HostPath(str(packed)), device)
    assert_not_bootable(device)


def test_too_small_is_refused(tmp_path: Path) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path, 20 * MIB)
    with pytest.raises(DeviceRefused, match="too small"):
        flash(image, device)
    assert Path(device).read_bytes() == OLD * 20 * MIB


def test_too_small_for_a_stream_of_unknown_length_is_not_bootable(tmp_path: Path) -> None:
    image, device = card_image(tmp_path), device_file(tmp_path, 20 * MIB)
    packed = Path(f"{image}.gz")
    packed.write_bytes(gzip.compress(Path(image).read_bytes()))
    with pytest.raises(DeviceRefused, match="too small"):
        flash(HostPath(str(packed)), device)
    assert_not_bootable(device)


def test_image_itself_is_refused(tmp_path: Path) -> None:
    image = card_image(tmp_path)
    old = Path(image).read_bytes()
    (tmp_path / "link").symlink_to("card.img")
    for name in (image, f"{tmp_path}/link"):
        with pytest.raises(DeviceRefused, match="the image itself"):
            flash(image, HostPath(name))
    assert Path(image).read_bytes() == old


def test_qcow2_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    image, device = tmp_path / "disk.qcow2", device_file(tmp_path)
    image.write_bytes(b"QFI\xfb" + bytes(1000))
    with pytest.raises(UnsupportedImage) as refused:
        flash(HostPath(str(image)), device)
    assert "qemu-img convert" in refused.value.hint


def test_what_is_no_device_is_refused(tmp_path: Path) -> None:
    image = card_image(tmp_path)
    for name in ("/dev/null", "/dev/no-such-disk", str(tmp_path), str(tmp_path / "missing")):
        with pytest.raises(DeviceRefused):
            propose_flash(image, HostPath(name))
    assert not (tmp_path / "missing").exists()
