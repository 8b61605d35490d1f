"""Cards that are files, and images for them: what flashing writes, and what it must not leave."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from tests.crafted import Layout
from tests.images import MIB, Part, TableKind, make_image
from xbuild.image.flash import Flashed, Progress, flash_image, propose_flash
from xbuild.image.table import read_table
from xbuild.record import HostPath

NOISE = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(6 * MIB // 32))
TREE: Layout = {"file": NOISE}
OLD = b"\xa5"


def card_image(path: Path, table: TableKind = "mbr") -> HostPath:
    layout = [Part("boot", "vfat", 16 * MIB, TREE), Part("root", "ext4", 32 * MIB, TREE)]
    return make_image(path / "card.img", table=table, layout=layout)


def device_file(path: Path, size: int = 64 * MIB) -> HostPath:
    """A card with an earlier life: no byte of it is zero."""
    device = path / "device"
    with open(device, "wb") as file:
        for _ in range(size // MIB):
            file.write(OLD * MIB)
        file.write(OLD * (size % MIB))
    return HostPath(str(device))


def flash(
    image: HostPath,
    device: HostPath,
    *,
    verify: bool = True,
    report: Callable[[Progress], None] | None = None,
) -> Flashed:
    return flash_image(propose_flash(image, device), verify=verify, report=report)


def data_of(image: HostPath) -> list[tuple[int, bytes]]:
    """What is no hole in the image, block by block."""
    found = []
    with open(image, "rb") as file:
        offset = 0
        while block := file.read(4096):
            if block.strip(b"\0"):
                found.append((offset, block))
            offset += 4096
    return found


def assert_holds(device: HostPath, image: HostPath) -> None:
    with open(device, "rb") as file:
        for offset, block in data_of(image):
            file.seek(offset)
            assert file.read(len(block)) == block, f"differs at {offset}"
    assert read_table(device).partitions == read_table(image).partitions


def assert_not_bootable(device: HostPath) -> None:
    """Neither the new content nor the old one can be taken for whole."""
    with open(device, "rb") as file:
        assert not file.read(MIB).strip(b"\0")
        file.seek(-MIB, os.SEEK_END)
        assert not file.read().strip(b"\0")
