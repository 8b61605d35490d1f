"""File systems in a range of an image: what they are, how full, and when they lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.crafted import Layout
from tests.images import MIB, Spec, make_image
from xbuild.image.filesystem import probe_filesystem
from xbuild.record import HostPath

SIZES = {"ext2": 8, "ext4": 8, "vfat": 8, "btrfs": 128, "xfs": 320, "squashfs": 1, "erofs": 1}


@pytest.fixture(params=SIZES)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[HostPath, str, int]:
    """An image with a file system behind other things, its kind and size."""
    size = SIZES[request.param] * MIB
    content: Layout | None = None if request.param == "xfs" else {"file": b"content" * 100}
    layout: list[Spec] = [("", "", MIB, None), ("label", request.param, size, content)]
    return make_image(tmp_path / "image", layout=layout), request.param, size


def test_kind_size_and_free_space(image: tuple[HostPath, str, int]) -> None:
    path, kind, size = image
    found = probe_filesystem(path, 2 * MIB, size)
    assert found is not None
    assert found.type == kind
    assert found.size is not None
    assert found.free is not None
    if kind in ("squashfs", "erofs"):
        assert (found.free, found.is_dirty) == (0, False)
        assert 0 < found.size <= size
    else:
        assert found.label.lower() == "label"
        assert found.size == size
        assert size // 4 < found.free < size
        assert found.is_dirty in (False, None)


def test_nothing_is_known_in_zeros(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(MIB))
    assert probe_filesystem(HostPath(str(tmp_path / "image")), 0, MIB) is None


@pytest.mark.parametrize(
    ("fs", "type_"), [("swap", "swap"), ("luks", "crypto_LUKS"), ("lvm", "LVM2_member")]
)
def test_what_is_no_file_system(tmp_path: Path, fs: str, type_: str) -> None:
    image = make_image(tmp_path / "image", table="none", layout=[("x", fs, 4 * MIB, None)])
    found = probe_filesystem(image, 0, 4 * MIB)
    assert found is not None
    assert (found.type, found.size, found.free) == (type_, None, None)


def test_a_fat_that_was_not_unmounted(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", table="none", layout=[("x", "vfat", 4 * MIB, None)])
    with open(image, "r+b") as file:
        file.seek(37)  # FAT12 and FAT16: fat_boot_sector.fat16.state
        file.write(b"\x01")
    found = probe_filesystem(image, 0, 4 * MIB)
    assert found is not None
    assert found.is_dirty is True


def test_an_ext4_whose_superblock_fails_its_checksum(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", table="none", layout=[("x", "ext4", 4 * MIB, None)])
    with open(image, "r+b") as file:
        file.seek(1024 + 0x100)
        file.write(b"\xff")
    found = probe_filesystem(image, 0, 4 * MIB)
    assert found is None or found.is_dirty is True


def test_a_cut_file_system_says_the_size_that_it_was(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", table="none", layout=[("x", "ext4", 8 * MIB, None)])
    os.truncate(image, 4 * MIB)
    found = probe_filesystem(image, 0, 4 * MIB)
    assert found is not None
    assert found.size == 8 * MIB
