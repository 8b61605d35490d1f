"""The dispatcher's machine code in the repository is what its source says."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.capability import require
from xbuild.binary.arch import host_arch
from xbuild.toolset import dispatcher

DISPATCH = Path(dispatcher.__file__).parent / "dispatch"


def test_image_is_made_of_its_source(tmp_path: Path) -> None:
    """By the very compiler that made it byte for byte; by another one it must at least build."""
    compiler = shutil.which("gcc") or ""
    require("gcc", bool(compiler) and shutil.which("ld") is not None, "no gcc on this host")
    built = tmp_path / "image"
    subprocess.run([DISPATCH / "build.sh", compiler, built], check=True)
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    machine = host_arch().name
    known = (DISPATCH / f"{machine}.bin").read_bytes()
    release = version.stdout.splitlines()[0].partition(" ")[2]
    if any(line.startswith(machine) and line.endswith(f" {release}") for line in _built_with()):
        assert built.read_bytes() == known
    assert abs(len(built.read_bytes()) - len(known)) < 512


def _built_with() -> list[str]:
    return (DISPATCH / "BUILT-WITH").read_text().splitlines()


def test_image_fits_in_a_page_and_needs_no_data() -> None:
    for image in DISPATCH.glob("*.bin"):
        content = image.read_bytes()
        assert len(content) % 16 == 0
        assert len(content) < 4096
        assert b"/run/xbuild/native.table\0" in content
        assert os.access(image, os.R_OK)
