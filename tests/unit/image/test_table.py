"""Partition tables by sfdisk, and those that lie."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from tests.images import DISK_IDS, MIB, Part, make_image
from xbuild.errors import DamagedImage, ImageError, TargetError, TargetNotFound
from xbuild.image.table import Partition, Table, check_table, read_table
from xbuild.record import HostPath

ENTRY = struct.Struct("<B3sB3sII")  # boot, CHS, type, CHS, start, sectors
LOGICAL = [
    ("boot", "", MIB, None),
    ("", "extended", 8 * MIB, None),
    ("a", "", MIB, None),
    ("b", "", MIB, None),
]


def entry_at(image: HostPath, sector: int, index: int) -> tuple[int, int, int]:
    """Return the offset in the file, the start and the size of an MBR entry."""
    at = sector * 512 + 446 + 16 * index
    with open(image, "rb") as file:
        file.seek(at)
        fields = ENTRY.unpack(file.read(16))
    return at, fields[4], fields[5]


def overwrite(image: HostPath, at: int, data: bytes) -> None:
    with open(image, "r+b") as file:
        file.seek(at)
        file.write(data)


def test_an_mbr_with_logical_partitions(tmp_path: Path) -> None:
    table = read_table(make_image(tmp_path / "image", layout=LOGICAL))
    assert (table.kind, table.disk_id) == ("mbr", DISK_IDS["mbr"].removeprefix("0x"))
    assert [(p.number, p.type, p.offset // MIB) for p in table.partitions] == [
        (1, "83", 1),
        (2, "5", 2),
        (5, "83", 3),
        (6, "83", 5),
    ]
    assert table.partitions[2].partuuid == f"{table.disk_id}-05"
    assert [p.is_container for p in table.partitions] == [False, True, False, False]


def test_a_gpt(tmp_path: Path) -> None:
    layout = [("boot", "", MIB, None), ("root fs", "", 2 * MIB, None)]
    table = read_table(make_image(tmp_path / "image", table="gpt", layout=layout))
    assert (table.kind, table.disk_id) == ("gpt", DISK_IDS["gpt"])
    second = table.partitions[1]
    assert second == Partition(
        2,
        2 * MIB,
        2 * MIB,
        "0fc63daf-8483-4772-8e79-3d69d8477de4",
        "root fs",
        "0b2d5ab1-e500-4000-8000-000000000102",
    )


@pytest.mark.parametrize("fs", ["ext4", "vfat", "squashfs", "btrfs"])
def test_a_file_system_alone_is_no_table(tmp_path: Path, fs: str) -> None:
    image = make_image(tmp_path / "image", table="none", layout=[("x", fs, 128 * MIB, {"a": b"b"})])
    assert read_table(image) == Table("none")


def test_data_of_no_kind_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(MIB))
    assert read_table(HostPath(str(tmp_path / "image"))) == Table("none")


def test_names_that_programs_would_take_for_something_else(tmp_path: Path) -> None:
    for name in ("-h", "a?offset=512", "a b\n'\"", os.fsdecode(b"\xff")):
        image = make_image(tmp_path / "image", layout=LOGICAL)
        os.rename(image, tmp_path / name)
        assert len(read_table(HostPath(str(tmp_path / name))).partitions) == 4


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    make_image(tmp_path / "image", layout=LOGICAL)
    (tmp_path / "link").symlink_to("image")
    assert len(read_table(HostPath(str(tmp_path / "link"))).partitions) == 4
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(TargetError, match="loop"):
        read_table(HostPath(str(tmp_path / "loop")))
    (tmp_path / "dangling").symlink_to("nothing")
    with pytest.raises(TargetNotFound):
        read_table(HostPath(str(tmp_path / "dangling")))


@pytest.mark.parametrize("kind", ["mbr", "gpt"])
def test_an_image_shorter_than_its_table_says(tmp_path: Path, kind: str) -> None:
    layout = [("a", "", MIB, None), ("b", "", 4 * MIB, None)]
    table = "gpt" if kind == "gpt" else "mbr"
    image = make_image(tmp_path / "image", table=table, layout=layout)  # type: ignore[arg-type]
    whole = os.path.getsize(image)
    os.truncate(image, 3 * MIB)
    with pytest.raises(DamagedImage, match=f"cut off: it has {3 * MIB} bytes.* speaks of {whole}"):
        read_table(image)


def test_overlapping_partitions(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", layout=[(n, "", 2 * MIB, None) for n in "abc"])
    at, start, _ = entry_at(image, 0, 1)
    overwrite(image, at + 8, struct.pack("<I", start - 2))
    with pytest.raises(DamagedImage, match=r"Partitions 1 and 2 .* overlap"):
        read_table(image)


@pytest.mark.parametrize("back_to", ["itself", "the first"])
def test_logical_partitions_in_a_cycle(tmp_path: Path, back_to: str) -> None:
    image = make_image(tmp_path / "image", layout=LOGICAL)
    _, extended, _ = entry_at(image, 0, 1)
    _, second, size = entry_at(image, extended, 1)
    at, _, _ = entry_at(image, extended + second, 1)
    target = second if back_to == "itself" else 0
    overwrite(image, at, ENTRY.pack(0, bytes(3), 5, bytes(3), target, size))
    with pytest.raises(DamagedImage, match=r"lead back to one another: 7 is [56] again"):
        read_table(image)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    with pytest.raises(DamagedImage, match="is empty"):
        read_table(HostPath(str(tmp_path / "image")))


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "queue")
    with pytest.raises(ImageError, match="is a FIFO"):
        read_table(HostPath(str(tmp_path / "queue")))
    with pytest.raises(ImageError, match="is a directory"):
        read_table(HostPath(str(tmp_path)))


def test_a_gpt_with_damaged_entries(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", table="gpt", layout=[("a", "", MIB, None)])
    for header in (512, os.path.getsize(image) - 512):
        overwrite(image, header + 16, b"\xff\xff\xff\xff")
    with pytest.raises(DamagedImage, match=r"GPT of .* is damaged"):
        read_table(image)


def test_a_gpt_for_other_sectors_is_refused(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", layout=[("a", "", MIB, None)])
    overwrite(image, 4096, b"EFI PART" + bytes(100))
    with pytest.raises(ImageError, match="sectors of 4096 bytes"):
        read_table(image)


def test_partitions_at_absurd_places() -> None:
    far = Partition(1, 1 << 62, 1 << 62, "83")
    with pytest.raises(DamagedImage, match="cut off"):
        check_table(Table("mbr", partitions=(far,)), MIB, "image")
    check_table(Table("mbr"), 1, "image")


def test_parts_of_the_same_place_may_hold_others() -> None:
    parts = (Partition(1, 0, 10, "5"), Partition(5, 2, 4, "83"), Partition(6, 6, 4, "83"))
    check_table(Table("mbr", partitions=parts), 10, "image")
    with pytest.raises(DamagedImage, match="1 and 2"):
        check_table(Table("mbr", partitions=(*parts, Partition(2, 5, 5, "83"))), 10, "image")


def test_a_label_with_every_kind_of_character(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", table="none", layout=[Part("a\\b '$c", "ext4", 4 * MIB)])
    from xbuild.image.filesystem import probe_filesystem

    found = probe_filesystem(image, 0, 4 * MIB)
    assert found is not None
    assert found.label == "a\\b '$c"
