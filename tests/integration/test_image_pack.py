"""Packing: what is unused goes, what is used stays, and the result is the same every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.capability import require
from tests.crafted import Layout
from tests.images import MIB, Part, TableKind, make_image
from xbuild.errors import ImageBusy, ImageError, UnsupportedImage
from xbuild.image.bmap import parse_bmap
from xbuild.image.lock import lock_image
from xbuild.image.pack import SUFFIXES, Compression, Packed, default_output, pack_image
from xbuild.image.resize import grow_image
from xbuild.image.table import read_table
from xbuild.record import HostPath

NOISE = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(2 * MIB // 32))
TREE: Layout = {"file": NOISE, "zeros": bytes(MIB)}
COMPRESSIONS: tuple[Compression, ...] = ("none", "xz", "zstd")
SECRET = b"what was deleted must not be handed on"
CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


def card(path: Path, table: TableKind = "mbr") -> HostPath:
    layout = [Part("boot", "vfat", 32 * MIB, TREE), Part("root", "ext4", 48 * MIB, TREE)]
    return make_image(path / "card.img", table=table, layout=layout)


def pack(image: HostPath, name: str, compression: Compression = "none") -> Packed:
    output = HostPath(f"{os.path.dirname(image)}/{name}{SUFFIXES[compression]}")
    return pack_image(image, output, compression=compression)


def delete_file(image: HostPath, name: str) -> None:
    """Delete a file of the ext4 partition, its content staying on disk."""
    place = f"{image}?offset={read_table(image).partitions[-1].offset}"
    subprocess.run(["debugfs", "-w", "-R", f"rm {name}", place], check=True, capture_output=True)
    subprocess.run(["e2fsck", "-f", "-y", place], check=False, capture_output=True)


def add_secret(image: HostPath) -> None:
    """Leave a deleted file's content behind, in both file systems."""
    boot, root = read_table(image).partitions
    with open(image, "r+b") as file:
        file.seek(boot.offset + boot.size - 64 * 1024)
        file.write(SECRET)
        file.seek(root.offset + root.size - 64 * 1024)
        file.write(SECRET)


def read_all(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_twice_the_same_input_gives_the_same_bytes(
    tmp_path: Path, compression: Compression
) -> None:
    image = card(tmp_path)
    results = []
    for number in ("1", "2"):
        done = pack(image, f"out{number}.img", compression)
        results.append((read_all(done.image), read_all(done.block_map)))
        os.utime(image, (int(number), int(number)))
        time.sleep(1.1)
    assert results[0] == results[1]


def test_result_does_not_depend_on_the_number_of_processors(tmp_path: Path) -> None:
    image = card(tmp_path)
    code = (
        "import os, sys; os.cpu_count = lambda: int(sys.argv[3])\n"
        "from xbuild.image.pack import pack_image\n"
        "pack_image(sys.argv[1], sys.argv[2], compression=sys.argv[4])"
    )
    for compression in ("xz", "zstd"):
        for count in ("1", "5"):
            argv = [sys.executable, "-c", code, image, f"{image}.{count}", count, compression]
            subprocess.run(argv, check=True, env={**os.environ, "PYTHONPATH": CHECKOUT})
        assert read_all(f"{image}.1") == read_all(f"{image}.5")
        os.unlink(f"{image}.1")
        os.unlink(f"{image}.5")


@pytest.mark.parametrize("table", ["mbr", "gpt"])
def test_packed_image_has_all_files_and_nothing_else(tmp_path: Path, table: TableKind) -> None:
    image = card(tmp_path, table)
    delete_file(image, "zeros")
    add_secret(image)
    before = read_all(image)
    done = pack(image, "out.img")
    packed = read_all(done.image)
    assert read_all(image) == before
    assert before.count(SECRET) == 2
    assert packed.count(SECRET) == 0
    assert packed.count(NOISE) == 2
    assert len(packed) == len(before)
    assert read_table(done.image) == read_table(image)
    root = read_table(done.image).partitions[-1]
    subprocess.run(["e2fsck", "-fn", f"{done.image}?offset={root.offset}"], check=True)
    assert os.stat(done.image).st_blocks * 512 < 20 * MIB
    assert not done.notes


def test_used_blocks_full_of_zeros_are_mapped(tmp_path: Path) -> None:
    image = card(tmp_path)
    done = pack(image, "out.img")
    place = f"{image}?offset={read_table(image).partitions[-1].offset}"
    shown = subprocess.run(
        ["debugfs", "-R", "blocks /zeros", place], capture_output=True, text=True, check=True
    )
    blocks = [int(number) for number in shown.stdout.split()]
    mapped = parse_bmap(read_all(done.block_map), "map").ranges
    base = read_table(image).partitions[-1].offset
    for block in blocks:
        at = base + block * 4096
        assert any(r.extent.offset <= at < r.extent.end for r in mapped)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_bmaptool_accepts_image_and_map(tmp_path: Path, compression: Compression) -> None:
    image = card(tmp_path, "gpt")
    done = pack(image, "out.img", compression)
    plain = read_all(pack(image, "plain.img").image)
    target = tmp_path / "target"
    subprocess.run(
        ["bmaptool", "copy", "--bmap", done.block_map, done.image, target],
        check=True,
        capture_output=True,
    )
    assert target.read_bytes() == plain


def test_checksums_hold_and_those_of_others_stay(tmp_path: Path) -> None:
    image = card(tmp_path)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  other.img\n")
    done = pack(image, "out.img", "zstd")
    lines = Path(done.checksums).read_text().splitlines()
    assert [line[66:] for line in lines] == ["other.img", "out.img.bmap", "out.img.zst"]
    ours = "\n".join(lines[1:]) + "\n"
    subprocess.run(["sha256sum", "-c"], input=ours, text=True, cwd=tmp_path, check=True)


def test_links_that_another_laid_are_not_followed(tmp_path: Path) -> None:
    """Who owns the directory of an image that root packs is not root."""
    image, victim = card(tmp_path), tmp_path / "victim"
    victim.write_text("precious")
    for name in ("SHA256SUMS", "out.img.bmap", "out.img"):
        (tmp_path / f".{name}.xbuild-pack").symlink_to(victim)
    done = pack(image, "out.img")
    assert not any(os.path.islink(each) for each in (done.image, done.block_map, done.checksums))
    os.unlink(done.checksums)
    os.symlink(victim, done.checksums)
    with pytest.raises(ImageError, match="Too many levels of symbolic links"):
        pack(image, "other.img")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("step", ["resized", "assembled"])
def test_link_that_another_lays_while_it_grows_is_not_followed(tmp_path: Path, step: str) -> None:
    """Programs get the file that was opened, and not its name."""
    image, victim = card(tmp_path), tmp_path / "victim"
    before = Path(image).read_bytes()
    victim.write_bytes(NOISE)
    os.truncate(victim, 200 * MIB)

    def lay(done: str) -> None:
        if done == step:
            work = tmp_path / ".card.img.xbuild-resize"
            work.unlink()
            work.symlink_to(victim)

    with pytest.raises(ImageError, match="Too many levels of symbolic links"):
        grow_image(image, size=200 * MIB, after_step=lay)
    assert victim.stat().st_size == 200 * MIB
    with open(victim, "rb") as file:
        assert file.read(len(NOISE)) == NOISE
    assert Path(image).read_bytes() == before


def test_in_place_replaces_the_image(tmp_path: Path) -> None:
    image = card(tmp_path)
    add_secret(image)
    os.chmod(image, 0o640)
    pack_image(image, image)
    assert SECRET not in read_all(image)
    assert os.stat(image).st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["SHA256SUMS", "card.img", "card.img.bmap"]


def test_image_that_changes_while_it_is_packed_leaves_nothing(tmp_path: Path) -> None:
    image = card(tmp_path)
    output = HostPath(f"{tmp_path}/out.img")
    with pytest.raises(ImageError, match="changed by another program"):
        pack_image(image, output, report=lambda _done, _total: os.utime(image))
    assert os.listdir(tmp_path) == ["card.img"]


def test_file_system_that_is_not_clean_is_kept_whole(tmp_path: Path) -> None:
    image = card(tmp_path)
    add_secret(image)
    place = f"{image}?offset={read_table(image).partitions[-1].offset}"
    command = ["debugfs", "-w", "-R", "ssv state 0", place]
    subprocess.run(command, check=True, capture_output=True)
    done = pack(image, "out.img")
    assert "partition 2 was not trimmed" in done.notes[0]
    assert read_all(done.image).count(SECRET) == 1


def test_loader_between_table_and_first_partition_stays(tmp_path: Path) -> None:
    image = card(tmp_path)
    with open(image, "r+b") as file:
        file.seek(8 << 10)
        file.write(b"a loader")
    done = pack(image, "out.img")
    assert read_all(done.image)[:MIB] == read_all(image)[:MIB]
    first = parse_bmap(read_all(done.block_map), "map").ranges[0].extent
    assert first.offset == 0
    assert first.length >= MIB  # its zeros are written, over what a card had there


def test_existing_output_is_refused(tmp_path: Path) -> None:
    image = card(tmp_path)
    (tmp_path / "out.img").write_bytes(b"precious")
    with pytest.raises(ImageError, match="is there already"):
        pack(image, "out.img")
    assert (tmp_path / "out.img").read_bytes() == b"precious"


def test_compressed_and_busy_images_are_refused(tmp_path: Path) -> None:
    image = card(tmp_path)
    done = pack(image, "out.img", "zstd")
    with pytest.raises(UnsupportedImage, match="compressed already"):
        pack_image(done.image, default_output(done.image, "xz"), compression="xz")
    with lock_image(image, exclusive=True), pytest.raises(ImageBusy):
        pack(image, "again.img")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_full_disk_leaves_nothing_behind(tmp_path: Path, compression: str) -> None:
    require("root", os.geteuid() == 0, "mounting needs root")
    image = card(tmp_path)
    (tmp_path / "full").mkdir()
    code = (
        "import sys; from xbuild.image.pack import pack_image\n"
        "from xbuild.errors import ImageError\n"
        "try: pack_image(sys.argv[1], sys.argv[2], compression=sys.argv[3])\n"
        "except ImageError as error: print('refused:', error.message)"
    )
    script = 'mount -t tmpfs -o size=1m none "$1" && "$2" -c "$3" "$4" "$1/out" "$5"; ls -A "$1"'
    arguments = [f"{tmp_path}/full", sys.executable, code, image, compression]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": CHECKOUT},
    )
    assert done.stdout.startswith("refused: Cannot"), done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "No space left" in done.stdout
