"""A real tree with compilers, the set of native tools for it, and builds in both ways.

The set is kept in xbuild's cache, as users have it: made and proven once, which takes minutes, and
found again by later sessions, since trees of one archive are alike.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.capability import require
from tests.patience import WORK_S
from tests.runs import Runner
from xbuild.errors import MirrorUnavailable
from xbuild.native.prepare import prepare
from xbuild.record import HostPath
from xbuild.source.cache import cache_directory
from xbuild.source.debian import BASE_PACKAGES, fetch_debian_archive, unpack_tree

SUITE = "trixie"
PACKAGES = (
    *(*BASE_PACKAGES, "gcc", "g++", "gfortran", "make", "libc6-dev", "perl-base"),
    *("bzip2", "file", "gawk", "patch", "xz-utils", "zstd"),
)
CACHE_HOME = os.path.dirname(cache_directory())


class CompilerTree:
    """An arm64 tree with GCC at ``path``, its set, and who runs in it."""

    def __init__(self, path: HostPath, runner: Runner, *, cache_home: str = CACHE_HOME) -> None:
        self.path = path
        self.runner = runner
        self._cache_home = cache_home
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", cache_home)
            try:
                self.toolset = prepare(path, progress=_silent).toolset
            except MirrorUnavailable as error:
                require("mirror", False, error.message)

    def run(
        self, work: str, script: str, *options: str, **settings: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the directory ``work`` of the host, shown at /mnt."""
        return self.runner.run(
            *options,
            *("--bind", f"{work}:/mnt", "--chdir", "/mnt"),
            *(self.path, "--", "/bin/sh", "-c", script),
            **{"env": self.environment(), "timeout_s": WORK_S, **settings},
        )

    def environment(self, **more: str) -> dict[str, str]:
        """Return an environment with the cache in which the set is."""
        return self.runner.user.environment(XDG_CACHE_HOME=self._cache_home, **more)

    def both(self, place: HostPath, files: dict[str, str], script: str, *options: str) -> str:
        """Run ``script`` emulated and natively on ``files``; what they leave must be the same.

        Returns what the emulated one printed.
        """
        said = []
        for name, chosen in (("emulated", ()), ("native", ("--native",))):
            work = write_files(f"{place}/{name}", files)
            done = self.run(work, script, *chosen, *options)
            complaints = [line for line in done.stderr.splitlines() if line[:6] != "note: "]
            said.append((done.returncode, done.stdout, complaints))
        assert said[0] == said[1]
        assert said[0][0] == 0, said[0][2]
        differing = subprocess.run(
            ["diff", "-r", "emulated", "native"], cwd=place, capture_output=True, text=True
        )
        assert differing.returncode == 0, differing.stdout
        return said[0][1]


def unpack_compiler_tree(destination: HostPath) -> HostPath:
    """Make a tree with compilers at the new directory ``destination``."""
    try:
        archive = fetch_debian_archive("arm64", (SUITE,), PACKAGES, progress=_silent)
    except MirrorUnavailable as error:
        require("mirror", False, error.message)
        raise
    return unpack_tree(archive, destination)


def know_programs_of(tree: HostPath, *packages: str) -> None:
    """Have dpkg know the files of these packages alone: a set for them is soon proven."""
    for listed in Path(tree, "var/lib/dpkg/info").glob("*.list"):
        if listed.stem.partition(":")[0] not in packages:
            listed.unlink()


def write_files(place: str, files: dict[str, str]) -> str:
    """Make the directory ``place`` with ``files``; those that begin with #! can be executed."""
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    for name, content in files.items():
        with open(f"{place}/{name}", "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(f"{place}/{name}", 0o755 if content.startswith("#!") else 0o644)
        os.utime(f"{place}/{name}", (1_700_000_000, 1_700_000_000))
    return place


def _silent(_text: str, _fraction: float | None) -> None:
    """Keep the progress out of the tests' output."""
