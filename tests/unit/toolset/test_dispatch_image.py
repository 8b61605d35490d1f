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
    require("x86_64", host_arch().name == "x86_64", "the image to compare is for x86_64")
    compiler = shutil.which("gcc") or ""
    require("gcc", bool(compiler) and shutil.which("ld") is not None, "no gcc on this host")
    built = tmp_path / "image"
    subprocess.run([DISPATCH / "build.sh", compiler, built], check=True)
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    known = (DISPATCH / "x86_64.bin").read_bytes()
    if version.stdout.splitlines()[0] == (DISPATCH / "BUILT-WITH").read_text().strip():
        assert built.read_bytes() == known
    assert abs(len(built.read_bytes()) - len(known)) < 512


def test_image_fits_in_a_page_and_needs_no_data() -> None:
    for image in DISPATCH.glob("*.bin"):
        content = image.read_bytes()
        assert len(content) % 16 == 0
        assert len(content) < 4096
        assert b"/run/xbuild/native.table\0" in content
        assert os.access(image, os.R_OK)
