"""``xbuild run IMAGE.xz``: unpacked beside it to be written, or for one run alone; never half."""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import OpenTerminal
from tests.disks import SIZE, assert_free, checksum, pi_image, running, small_system
from tests.images import MIB, Part, make_image
from tests.runs import Runner, notes
from xbuild.errors import ImageError
from xbuild.image.source import provide_source
from xbuild.record import HostPath

WAIT = "echo there; sleep 60"

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "bz2": lambda data: bz2.compress(data, 1),
    "zst": lambda data: (
        subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout
    ),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    yield Path(pi_image(tmp_path_factory.mktemp("pi") / "pi.img")).read_bytes()
    compressed.cache_clear()


@functools.cache
def compressed(content: bytes, suffix: str) -> bytes:
    """Return it packed: once, as this takes seconds."""
    return PACKERS[suffix](content)


def packed(place: Path, content: bytes, suffix: str = "gz") -> HostPath:
    path = place / f"pi.img.{suffix}"
    path.write_bytes(compressed(content, suffix))
    return HostPath(str(path))


@pytest.mark.parametrize("suffix", PACKERS)
def test_run_alone_leaves_nothing(root: Runner, tmp_path: Path, raw: bytes, suffix: str) -> None:
    image = packed(tmp_path, raw, suffix)
    before = checksum(image)
    script = "cat /home/pi/note; echo new >/home/pi/new; echo x >/root/x; cat /home/pi/new /root/x"
    done = root.run("--ephemeral", image, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "at home\nnew\nx\n"
    assert any("for this run alone" in note for note in notes(done))
    assert root.output("--read-only", image, "cat", "/home/pi/note") == "at home\n"
    assert checksum(image) == before
    assert os.listdir(tmp_path) == [os.path.basename(image)]


def test_changes_stay_in_what_it_was_unpacked_to(root: Runner, tmp_path: Path, raw: bytes) -> None:
    image = packed(tmp_path, raw)
    os.chmod(image, 0o440)
    os.chown(image, 1234, 5678)
    before = checksum(image)
    done = root.run(image, "sh", "-c", "echo one >/root/one")
    assert done.returncode == 0, done.stderr
    made = HostPath(image.removesuffix(".gz"))
    assert f"{image} was unpacked to {made}, which stays" in notes(done)
    assert root.output(made, "cat", "/root/one") == "one\n"
    status = os.stat(made)
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 1234, 5678)
    assert status.st_blocks * 512 < len(raw) // 4
    assert checksum(image) == before
    assert_free(made)


def test_what_is_there_is_not_replaced(root: Runner, tmp_path: Path, raw: bytes) -> None:
    image = packed(tmp_path, raw)
    made = tmp_path / "pi.img"
    made.write_bytes(b"mine")
    done = root.run(image, "true")
    assert done.returncode == 125
    assert f"{made}, which exists" in done.stderr
    assert f"xbuild run {made}" in done.stderr
    assert made.read_bytes() == b"mine"
    assert root.run("--ephemeral", image, "true").returncode == 0


def test_dry_run_unpacks_nothing_to_stay(root: Runner, tmp_path: Path, raw: bytes) -> None:
    image = packed(tmp_path, raw)
    plan = root.output("--dry-run", image, "true")
    assert f"note: {image} would be unpacked to {tmp_path}/pi.img" in plan
    assert f"image      {tmp_path}/pi.img, locked" in plan
    assert os.listdir(tmp_path) == ["pi.img.gz"]


@pytest.mark.parametrize("options", [(), ("--ephemeral",)])
@pytest.mark.parametrize("suffix", PACKERS)
def test_cut_off_or_garbled_leaves_nothing(
    root: Runner, tmp_path: Path, raw: bytes, suffix: str, options: tuple[str, ...]
) -> None:
    image = Path(packed(tmp_path, raw, suffix))
    whole = image.read_bytes()
    garbled = bytearray(whole)
    garbled[len(whole) * 2 // 3] ^= 0xFF
    for content in (whole[: len(whole) * 2 // 3], whole[:-2], bytes(garbled)):
        image.write_bytes(content)
        done = root.run(*options, str(image), "true")
        assert done.returncode == 125, done.stdout
        assert "is cut off" in done.stderr or "is damaged" in done.stderr
        assert "hint: fetch or pack it again" in done.stderr
        assert os.listdir(tmp_path) == [image.name]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> HostPath:
    """An image that takes seconds to unpack."""
    layout = small_system() | {"root/noise": random.Random(1).randbytes(40 * MIB)}
    place = tmp_path_factory.mktemp("noisy") / "pi.img"
    image = make_image(place, layout=[Part("root", "ext4", 2 * SIZE, layout)])
    subprocess.run(["bzip2", "-1", image], check=True)
    return HostPath(f"{image}.bz2")


@pytest.mark.parametrize("options", [(), ("--ephemeral",)])
def test_killed_while_unpacking_leaves_nothing(
    root: Runner, tmp_path: Path, noisy: HostPath, options: tuple[str, ...]
) -> None:
    image = str(shutil.copy(noisy, tmp_path))
    environment = root.user.environment() | {"TMPDIR": str(tmp_path)}
    with root.spawn(*options, image, "true", stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"note: unpacking {image}\n"
        process.kill()
        assert process.wait() == -9
    assert os.listdir(tmp_path) == ["pi.img.bz2"]


def test_killed_in_the_run_leaves_no_loop_device(root: Runner, tmp_path: Path, raw: bytes) -> None:
    image = packed(tmp_path, raw)
    with running(lambda: root.spawn("--ephemeral", image, "sh", "-c", WAIT)):
        pass  # it is killed here; the fixture that watches the host sees the rest
    assert os.listdir(tmp_path) == ["pi.img.gz"]


@pytest.mark.parametrize("options", ["", "--ephemeral"])
def test_room_is_checked_first(root: Runner, tmp_path: Path, raw: bytes, options: str) -> None:
    image = packed(tmp_path, raw)
    small = tmp_path / "small"
    small.mkdir()
    for size, word in (("1600k", "needs"), ("40m", "has less than 256 MiB left")):
        script = (
            f"mount -t tmpfs -o size={size} t {small}; cp {image} {small}; df {small} >&2;"
            f" {' '.join(root.argv(options, f'{small}/pi.img.gz', 'true'))};"
            f" echo status $?; ls -A {small}"
        )
        environment = root.user.environment() | {"TMPDIR": str(small)}
        done = root.user.run(["unshare", "-m", "sh", "-c", script], env=environment)
        assert done.stdout == "status 125\npi.img.gz\n", done.stdout + done.stderr
        assert word in done.stderr, done.stderr
        assert "hint: make room, or" in done.stderr


def test_block_map_says_the_room_that_is_needed(
    root: Runner, tmp_path: Path, raw: bytes, xbuild_for: Callable[..., list[str]]
) -> None:
    (tmp_path / "pi.img").write_bytes(raw)
    pack = [*xbuild_for(None), "image", "pack", f"{tmp_path}/pi.img", "--compress", "xz"]
    subprocess.run(pack, check=True, capture_output=True)
    small = tmp_path / "small"
    small.mkdir()
    script = (
        f"mount -t tmpfs -o size=2m t {small}; cp {tmp_path}/pi.img.xz {tmp_path}/pi.img.bmap"
        f" {small}; {' '.join(root.argv(f'{small}/pi.img.xz', 'true'))}; ls {small}"
    )
    done = root.user.run(["unshare", "-m", "sh", "-c", script])
    assert "MiB or more, and" in done.stderr
    assert done.stdout.split() == ["pi.img.bmap", "pi.img.xz"]


def test_progress_on_a_terminal(
    root: Runner, tmp_path: Path, raw: bytes, open_terminal: OpenTerminal
) -> None:
    image = packed(tmp_path, raw)
    session = open_terminal(
        root.argv("--ephemeral", image, "cat", "/home/pi/note"),
        user=root.user,
        dimensions=(24, 120),
    )
    session.expect("unpacking .* [KM]iB")
    session.expect_exact("at home")
    session.wait()
    assert session.exitstatus == 0


def test_where_there_are_no_files_without_a_name(root: Runner, tmp_path: Path, raw: bytes) -> None:
    """A ramfs has none."""
    image = packed(tmp_path, raw)
    place = tmp_path / "ramfs"
    place.mkdir()
    script = (
        f"mount -t ramfs t {place}; cp {image} {place};"
        f" {' '.join(root.argv(f'{place}/pi.img.gz', 'cat', '/home/pi/note'))}; ls -A {place}"
    )
    done = root.user.run(["unshare", "-m", "sh", "-c", script])
    assert done.stdout.split("\n")[:3] == ["at home", "pi.img", "pi.img.gz"], done.stderr
    shutil.rmtree(place)


@pytest.mark.parametrize("writes", [True, False])
def test_image_that_changes_while_it_is_unpacked_is_not_used(
    tmp_path: Path, raw: bytes, writes: bool
) -> None:
    image = packed(tmp_path, raw)
    with pytest.raises(ImageError, match="was changed by another program"):
        provide_source(image, writes=writes, keep=True, progress=lambda *_: os.utime(image))
    assert os.listdir(tmp_path) == ["pi.img.gz"]
