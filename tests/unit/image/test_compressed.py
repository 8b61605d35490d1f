"""Compressed images: unpacked sparsely and in bounded room, and those that are cut off."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crafted import make_tar, merged_usr
from tests.images import MIB, Part, Spec, TableKind, make_image
from xbuild.errors import DamagedImage, ImageError, UnsupportedImage
from xbuild.image import compressed
from xbuild.image.compressed import unpack_for_reading
from xbuild.image.recognise import is_image
from xbuild.image.streamed import stream_image
from xbuild.image.survey import require_root, survey_image
from xbuild.image.table import read_table
from xbuild.record import HostPath, replace
from xbuild.sandbox import room

TREE = merged_usr("arm64", "/lib/ld-linux-aarch64.so.1")


def by_zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": by_zstd,
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    layout: list[Spec] = [("boot", "vfat", 8 * MIB, {"a": b"b"}), ("root", "ext4", 32 * MIB, TREE)]
    path = make_image(tmp_path_factory.mktemp("image") / "image", layout=layout)
    return Path(path).read_bytes()


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_compressed_image_is_surveyed(tmp_path: Path, raw: bytes, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(PACKERS[suffix](raw))
    assert is_image(HostPath(str(path)))
    found = survey_image(HostPath(str(path)))
    assert (found.path, found.size, found.root) == (str(path), len(raw), 2)
    assert found.compression in ("gzip", "xz", "bzip2", "zstd")
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_compressed_image_cut_off(tmp_path: Path, raw: bytes, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    whole = PACKERS[suffix](raw)
    for length in (len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedImage, match="is cut off after") as error:
            survey_image(HostPath(str(path)))
        assert error.value.hint == "fetch or pack it again"


def test_a_compressed_image_that_is_garbled(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "image.gz"
    data = bytearray(gzip.compress(raw))
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DamagedImage, match=r"is damaged|is cut off"):
        survey_image(HostPath(str(path)))


def test_zeros_become_holes_and_the_content_is_the_same(
    tmp_path: Path, raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    odd = raw + b"\0" * 5000 + b"end"
    (tmp_path / "image.gz").write_bytes(gzip.compress(odd))
    told: list[tuple[int, int]] = []
    fd = unpack_for_reading(
        HostPath(str(tmp_path / "image.gz")), lambda done, total: told.append((done, total))
    )
    try:
        assert os.pread(fd, len(odd) + 1, 0) == odd
        assert os.fstat(fd).st_blocks * 512 < len(odd) // 2
    finally:
        os.close(fd)
    assert told[-1] == (os.path.getsize(tmp_path / "image.gz"),) * 2
    assert os.listdir(tmp_path) == ["image.gz"]


def test_zeros_alone_have_the_size_that_they_had(tmp_path: Path) -> None:
    (tmp_path / "image.gz").write_bytes(gzip.compress(bytes(3 * MIB + 1)))
    fd = unpack_for_reading(HostPath(str(tmp_path / "image.gz")))
    assert os.fstat(fd).st_size == 3 * MIB + 1
    os.close(fd)


NOISE = random.Random(4).randbytes(12 * MIB)
LAYOUTS: dict[str, tuple[TableKind, list[Spec]]] = {
    "mbr": (
        "mbr",
        [
            Part("boot", "vfat", 48 * MIB, {"noise": NOISE, "a": b"b"}, options=("-F", "32")),
            ("root", "ext4", 32 * MIB, TREE),
        ],
    ),
    "gpt": (
        "gpt",
        [
            ("efi", "vfat", 32 * MIB, {"noise": NOISE}),
            ("swap", "swap", 16 * MIB, None),
            ("root", "ext4", 32 * MIB, TREE),
            ("secret", "luks", 16 * MIB, None),
            ("group", "lvm", 16 * MIB, None),
        ],
    ),
    "logical": (
        "mbr",
        [
            ("boot", "vfat", 32 * MIB, {"noise": NOISE}),
            ("", "extended", 60 * MIB, None),
            ("home", "ext4", 16 * MIB, {"me/x": b""}),
            ("root", "ext4", 32 * MIB, TREE),
        ],
    ),
    "none": ("none", [("root", "ext4", 32 * MIB, TREE)]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_as_much_is_seen_as_in_a_raw_image(tmp_path: Path, name: str) -> None:
    table, layout = LAYOUTS[name]
    image = make_image(tmp_path / "image", table=table, layout=layout)
    packed = HostPath(f"{image}.gz")
    Path(packed).write_bytes(gzip.compress(Path(image).read_bytes(), 1))
    found, known = survey_image(packed), survey_image(image)
    assert found.root is not None
    assert found.tree is not None
    assert known.tree is not None
    tree = replace(found.tree, target=known.tree.target)
    hints = replace(found, path=image, compression="", tree=tree, partitions=known.partitions)
    assert hints == known
    for one, other in zip(found.partitions, known.partitions, strict=True):
        assert replace(one, hint="") == replace(other, hint="")  # hints name the file


def test_what_tells_nothing_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, layout = LAYOUTS["gpt"]
    image = make_image(tmp_path / "image", table=table, layout=layout)
    luks = read_table(image).partitions[3]
    with open(image, "r+b") as file:
        file.seek(luks.offset + MIB)
        file.write(NOISE)
    packed = HostPath(f"{image}.gz")
    Path(packed).write_bytes(gzip.compress(Path(image).read_bytes(), 1))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    streamed = stream_image(packed)
    used = os.fstat(streamed.fd).st_blocks * 512
    os.close(streamed.fd)
    assert streamed.size == os.path.getsize(image)
    assert not streamed.passed_by
    assert used < os.stat(image).st_blocks * 512 - 20 * MIB


def test_room_is_left_to_others(
    tmp_path: Path, raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be known in little room is; and the root, that it was not looked into, and why."""
    whole = os.statvfs("/var/tmp")
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    monkeypatch.setattr(room, "RESERVE", whole.f_blocks * whole.f_frsize * 2)
    packed = HostPath(str(tmp_path / "image.gz"))
    Path(packed).write_bytes(gzip.compress(raw))
    found = survey_image(packed)
    kinds = [p.filesystem.type if p.filesystem else "" for p in found.partitions]
    assert (kinds, found.root, found.size) == (["vfat", "ext4"], None, len(raw))
    assert "no room in /var/tmp" in found.partitions[1].problem
    assert "TMPDIR" in found.partitions[1].hint
    with pytest.raises(ImageError, match="no room in /var/tmp"):
        require_root(found)
    with pytest.raises(ImageError, match="/var/tmp has less than") as error:
        unpack_for_reading(packed)
    assert "TMPDIR" in error.value.hint


def test_a_content_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "SIZE_LIMIT", MIB)
    (tmp_path / "image.gz").write_bytes(gzip.compress(bytes(4 * MIB)))
    with pytest.raises(DamagedImage, match="unpacks to more"):
        survey_image(HostPath(str(tmp_path / "image.gz")))


def test_what_is_no_image(tmp_path: Path) -> None:
    contents = {
        "empty": b"",
        "text": b"hello\n",
        "tar": make_tar(TREE),
        "tar.xz": lzma.compress(make_tar(TREE)),
        "program": b"\x7fELF" + bytes(506) + b"\x55\xaa",
        "kernel": b"MZ" + bytes(508) + b"\x55\xaa\0\0HdrS",
        "zeros": bytes(MIB),
        "cut.gz": gzip.compress(os.urandom(1000))[:20],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert not is_image(HostPath(str(tmp_path / name))), name
    for absent in (tmp_path, tmp_path / "nothing", tmp_path / "a\0b"):
        assert not is_image(HostPath(str(absent)))


@pytest.mark.parametrize(
    ("magic", "command"),
    [
        (b"QFI\xfb", "qemu-img convert -f qcow2 -O raw"),
        (b"KDMV", "qemu-img convert -f vmdk -O raw"),
        (b"vhdxfile", "qemu-img convert -f vhdx -O raw"),
        (b"\x3a\xff\x26\xed", "simg2img"),
    ],
)
def test_other_formats_are_refused_with_the_command(
    tmp_path: Path, magic: bytes, command: str
) -> None:
    for name, content in (("disk", magic + bytes(600)), ("disk.gz", None)):
        (tmp_path / name).write_bytes(content or gzip.compress(magic + bytes(600)))
        with pytest.raises(UnsupportedImage) as error:
            is_image(HostPath(str(tmp_path / name)))
        assert error.value.hint.startswith(command)
