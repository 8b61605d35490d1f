"""Machine code that is in the repository beside its source: made again, and compared."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.capability import require
from xbuild.binary.arch import host_arch


def assert_made_of_source(directory: Path, built: Path) -> None:
    """Run ``build.sh`` in ``directory``, to ``built``, and compare with what is there.

    By the very compiler that made it byte for byte; by another one it must at least build.
    """
    compiler = shutil.which("gcc") or ""
    require("gcc", bool(compiler) and shutil.which("ld") is not None, "no gcc on this host")
    subprocess.run([directory / "build.sh", compiler, built], check=True)
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    machine = host_arch().name
    known = (directory / f"{machine}.bin").read_bytes()
    release = version.stdout.splitlines()[0].partition(" ")[2]
    made_with = (directory / "BUILT-WITH").read_text().splitlines()
    if any(line.startswith(machine) and line.endswith(f" {release}") for line in made_with):
        assert built.read_bytes() == known
    assert abs(len(built.read_bytes()) - len(known)) < 512
