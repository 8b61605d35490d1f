"""Flashing a card that fails: errors, bytes that change, a card that vanishes or shrinks.

The card is a file of a FUSE file system, so that the kernel's own ways are gone through.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.capability import require
from tests.images import MIB, Part, make_image
from tests.installation import CHECKOUT
from tests.patience import WORK_S
from tests.users import User
from xbuild.record import HostPath

SIZE = 64 * MIB
NOISE = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(6 * MIB // 32))
Flash = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def image(tmp_path: Path) -> HostPath:
    layout = [Part("boot", "vfat", 16 * MIB), Part("root", "ext4", 32 * MIB, {"file": NOISE})]
    return make_image(tmp_path / "card.img", table="gpt", layout=layout)


@pytest.fixture
def inside(image: HostPath) -> int:
    """An offset within the file's data: no hole, and none of the ends."""
    content = Path(image).read_bytes()
    at = content.find(NOISE[: 64 << 10])
    assert at > 0
    return at + MIB + 77


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    path = tmp_path / "backing"
    path.write_bytes(b"\xa5" * SIZE)
    return path


@pytest.fixture
def flash(
    tmp_path: Path,
    image: HostPath,
    backing: Path,
    xbuild_for: Callable[[User | None], list[str]],
) -> Flash:
    """``flash("eio:4096", "--no-verify")``: flash the image to a card with that fault."""
    require("fuse", os.path.exists("/dev/fuse") and os.geteuid() == 0, "mounts FUSE as root")
    place = tmp_path / "mounted"
    place.mkdir()

    def run(fault: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [*xbuild_for(None), "image", "flash", "--yes", *options, image, f"{place}/card"]
        alone = ["unshare", "-m", "--propagation", "private"]
        faulty = [sys.executable, "-m", "tests.faulty", str(place), str(backing), fault]
        return subprocess.run(
            [*alone, *faulty, "--", *command],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=WORK_S,
            cwd=CHECKOUT,
        )

    return run


def strikes(done: subprocess.CompletedProcess[str]) -> int:
    return done.stderr.count("fault: ")


def assert_not_bootable(backing: Path) -> None:
    with backing.open("rb") as file:
        assert not file.read(MIB).strip(b"\0")
        file.seek(-MIB, os.SEEK_END)
        assert not file.read().strip(b"\0")


def assert_written(backing: Path, image: HostPath) -> None:
    with backing.open("rb") as card, open(image, "rb") as file:
        while wanted := file.read(4096):
            found = card.read(len(wanted))
            assert found == wanted or not wanted.strip(b"\0")


def test_sound_card_is_written(flash: Flash, backing: Path, image: HostPath) -> None:
    done = flash("none")
    assert done.returncode == 0, done.stderr
    assert "written, verified" in done.stdout
    assert "twice" not in done.stderr
    assert_written(backing, image)


@pytest.mark.parametrize("options", [(), ("--no-verify",)])
def test_write_error_is_named_with_its_place(
    flash: Flash, backing: Path, inside: int, options: tuple[str, ...]
) -> None:
    done = flash(f"eio:{inside}", *options)
    assert done.returncode == 125
    assert strikes(done)
    found = re.search(r"Cannot write to \S+ at byte (\d+): Input/output error", done.stderr)
    assert found is not None, done.stderr
    assert int(found[1]) <= inside < int(found[1]) + 4 * MIB
    assert "is not bootable now" in done.stderr
    assert_not_bootable(backing)


@pytest.mark.parametrize("fault", ["garble", "rot"])
def test_bad_once_is_written_once_more(
    flash: Flash, backing: Path, image: HostPath, inside: int, fault: str
) -> None:
    done = flash(f"{fault}:{inside}:1")
    assert done.returncode == 0, done.stderr
    assert strikes(done) == 1
    found = re.search(r"note: bytes (\d+)-(\d+) had to be written twice", done.stderr)
    assert found is not None, done.stderr
    assert int(found[1]) <= inside <= int(found[2])
    assert int(found[2]) - int(found[1]) < 4 * MIB
    assert_written(backing, image)


@pytest.mark.parametrize("fault", ["garble", "rot"])
def test_bad_twice_is_named(flash: Flash, backing: Path, inside: int, fault: str) -> None:
    done = flash(f"{fault}:{inside}:2")
    assert done.returncode == 125
    assert strikes(done) == 2
    found = re.search(r"does not keep what is written to it: bytes (\d+)-(\d+),", done.stderr)
    assert found is not None, done.stderr
    assert int(found[1]) <= inside <= int(found[2])
    assert "counterfeit" in done.stderr
    assert_not_bootable(backing)


def test_bad_beginning_is_written_once_more_or_taken_away(
    flash: Flash, backing: Path, image: HostPath
) -> None:
    """Byte 512 is the GPT's: it is wiped, at first, and written last."""
    done = flash("garble:512:2")
    assert done.returncode == 0, done.stderr
    assert strikes(done) == 2
    assert "bytes 0-" in done.stderr
    assert_written(backing, image)
    done = flash("rot:512:100")
    assert done.returncode == 125
    assert "does not keep what is written to it: bytes 0-" in done.stderr
    assert_not_bootable(backing)


def test_without_verification_a_bad_byte_stays(flash: Flash, inside: int) -> None:
    done = flash(f"garble:{inside}:1", "--no-verify")
    assert done.returncode == 0, done.stderr
    assert strikes(done) == 1
    assert "not verified" in done.stdout


def test_card_that_vanishes_while_it_is_written(flash: Flash, backing: Path, inside: int) -> None:
    done = flash(f"gone:{inside}")
    assert done.returncode == 125
    assert strikes(done) == 1
    assert "it is gone" in done.stderr, done.stderr
    with backing.open("rb") as file:
        assert not file.read(MIB).strip(b"\0")


def test_card_that_shrinks_while_it_is_written(flash: Flash, backing: Path, inside: int) -> None:
    done = flash(f"shrunk:{inside}")
    assert done.returncode == 125
    assert strikes(done)
    assert re.search(r"Cannot write to|has become smaller|ends at byte", done.stderr)
    with backing.open("rb") as file:
        assert not file.read(MIB).strip(b"\0")


def test_failing_card_can_be_tried_again(
    flash: Flash, backing: Path, image: HostPath, inside: int
) -> None:
    assert flash(f"eio:{inside}").returncode == 125
    assert flash("none").returncode == 0
    assert_written(backing, image)
