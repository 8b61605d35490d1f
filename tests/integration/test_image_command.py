"""The subcommands of ``xbuild image`` as a person calls them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.images import MIB, Part, make_image
from tests.users import User
from xbuild.record import HostPath

Result = subprocess.CompletedProcess[str]


@pytest.fixture
def xbuild_image(xbuild_for: Callable[[User | None], list[str]]) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        command = [*xbuild_for(None), "image", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )

    return run


@pytest.fixture
def image(tmp_path: Path) -> HostPath:
    return make_image(tmp_path / "card.img", layout=[Part("root", "ext4", 32 * MIB)])


def test_grow_and_shrink_say_the_sizes(xbuild_image: Callable[..., Result], image: str) -> None:
    grown = xbuild_image("grow", image, "+32M")
    assert grown.returncode == 0, grown.stderr
    assert grown.stdout == f"{image}: 33.0 MiB -> 65.0 MiB; partition 1: 32.0 MiB -> 64.0 MiB\n"
    shrunk = xbuild_image("shrink", image, "50M")
    assert shrunk.stdout == f"{image}: 65.0 MiB -> 50.0 MiB; partition 1: 64.0 MiB -> 49.0 MiB\n"
    assert xbuild_image("shrink", image, "--minimum").returncode == 0
    assert os.path.getsize(image) < 40 * MIB


@pytest.mark.parametrize(
    "arguments",
    [
        ("grow", "IMAGE"),
        ("grow", "IMAGE", "much"),
        ("grow", "IMAGE", "+"),
        ("shrink", "IMAGE", "1.5G"),
        ("shrink", "IMAGE", "1G", "--minimum"),
        ("pack", "IMAGE", "--in-place", "--compress", "xz"),
        ("pack", "IMAGE", "--compress", "rar"),
        ("flash", "IMAGE"),
        ("melt", "IMAGE"),
    ],
)
def test_what_is_asked_wrongly_changes_nothing(
    xbuild_image: Callable[..., Result], image: str, arguments: tuple[str, ...]
) -> None:
    before = os.stat(image)
    result = xbuild_image(*(image if word == "IMAGE" else word for word in arguments))
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    after = os.stat(image)
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x1f\x8b\x08\x00rest", b"QFI\xfb\0\0"])
@pytest.mark.parametrize("arguments", [("grow", "IMAGE", "1G"), ("shrink", "IMAGE")])
def test_what_is_no_image_is_refused(
    xbuild_image: Callable[..., Result],
    tmp_path: Path,
    content: bytes,
    arguments: tuple[str, ...],
) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    result = xbuild_image(*(str(path) if word == "IMAGE" else word for word in arguments))
    assert result.returncode == 125, result.stderr
    assert result.stderr.startswith("xbuild: ")
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["thing"]


@pytest.mark.parametrize("verb", [("grow", "1G"), ("shrink",), ("pack",)])
def test_compressed_image_names_the_command_that_unpacks_it(
    xbuild_image: Callable[..., Result], image: str, verb: tuple[str, ...]
) -> None:
    subprocess.run(["xz", "-0", image], check=True)
    name, *rest = verb
    result = xbuild_image(name, f"{image}.xz", *rest)
    assert result.returncode == 125
    command = result.stderr.rpartition(": xz ")[2].strip()
    subprocess.run(["sh", "-c", f"xz {command}"], check=True)
    assert xbuild_image("grow", image, "+8M").returncode == 0


@pytest.mark.parametrize("verb", [("grow", "1G"), ("shrink",), ("pack",), ("flash", "/dev/null")])
def test_missing_image_is_said(
    xbuild_image: Callable[..., Result], tmp_path: Path, verb: tuple[str, ...]
) -> None:
    name, *rest = verb
    result = xbuild_image(name, f"{tmp_path}/missing", *rest)
    assert result.returncode == 125, result.stderr
    assert result.stderr.startswith("xbuild: ")


def test_pack_names_what_it_made(xbuild_image: Callable[..., Result], image: str) -> None:
    result = xbuild_image("pack", image, "--compress", "xz")
    assert result.returncode == 0, result.stderr
    names = [line.split(": ")[0] for line in result.stdout.splitlines()]
    place = os.path.dirname(image)
    assert names == [f"{image}.xz", f"{image}.bmap", f"{place}/SHA256SUMS"]
    assert all(os.path.exists(name) for name in names)
    again = xbuild_image("pack", image, "--compress", "xz")
    assert again.returncode == 125
    assert "--force" in again.stderr
    assert xbuild_image("pack", image, "--compress", "xz", "--force").returncode == 0
