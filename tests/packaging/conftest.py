"""The built things, and environments to install them in, without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable

import pytest

from tests.installation import CHECKOUT, pip_install

_SHIPPED = (
    "xbuild",
    "binfmt",
    "known",
    "profiles",
    "tests",
    "bench",
    "docs",
    "script",
    "pyproject.toml",
    "hatch_build.py",
)
_DOCUMENTS = ("README.md", "LICENSE", "CHANGELOG.md")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of the checkout's sources: building must not write into the original."""
    copy = os.path.join(tmp_path_factory.mktemp("checkout"), "xbuild")
    os.mkdir(copy)
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in (*_SHIPPED, *_DOCUMENTS):
        source, target = os.path.join(CHECKOUT, name), os.path.join(copy, name)
        if os.path.isdir(source):
            shutil.copytree(source, target, ignore=ignored)
        elif os.path.exists(source):
            shutil.copyfile(source, target)
    return copy


@pytest.fixture(scope="session")
def distributions(checkout: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of the built ``wheel`` and ``sdist``; the wheel is built from the sdist."""
    output = str(tmp_path_factory.mktemp("dist"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", output, checkout]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    kinds = {".whl": "wheel", ".gz": "sdist"}
    found = {kinds[os.path.splitext(name)[1]]: name for name in os.listdir(output)}
    return {kind: os.path.join(output, name) for kind, name in found.items()}


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Make an environment without xbuild that finds what xbuild depends on; return its bin."""

    def make() -> str:
        place = str(tmp_path_factory.mktemp("environment"))
        venv.create(place, with_pip=False, symlinks=True)
        library = sysconfig.get_path("purelib", vars={"base": place})
        # A directory named in a .pth is searched, but .pth files in it are not read: an editable
        # xbuild of ours stays out of sight.
        with open(os.path.join(library, "dependencies.pth"), "w", encoding="utf-8") as file:
            file.write(sysconfig.get_path("purelib") + "\n")
        return os.path.join(place, "bin")

    return make


@pytest.fixture(scope="session")
def installed_wheel(distributions: dict[str, str], new_environment: Callable[[], str]) -> str:
    """The bin directory of an environment with the wheel."""
    programs = new_environment()
    pip_install(programs, "--no-index", distributions["wheel"])
    return programs
