"""An xbuild that every user of this machine can run.

The checkout and the virtual environment that run the tests may lie where only their owner can
read (below /root); then the ordinary users run a copy.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from tests.capability import require
from tests.users import User
from xbuild.record import HostPath

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LAUNCHER = """\
#!{python} -IS
import sys
sys.path[:0] = {path!r}
from xbuild.cli.main import main
sys.argv[0] = "xbuild"
sys.exit(main())
"""
_PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")


def write_launcher(place: HostPath, python: str, path: list[str]) -> HostPath:
    """Write the program ``place``/xbuild, which runs xbuild from the directories in ``path``."""
    launcher = HostPath(os.path.join(place, "xbuild"))
    with open(launcher, "w", encoding="utf-8") as file:
        file.write(_LAUNCHER.format(python=python, path=path))
    os.chmod(launcher, 0o755)
    return launcher


def own_launcher(place: HostPath) -> HostPath:
    """Make a launcher for who runs the tests: this Python, this checkout."""
    path = [CHECKOUT, *(entry for entry in sys.path if entry.endswith("-packages"))]
    return write_launcher(place, sys.executable, path)


def copy_for(user: User, place: HostPath) -> HostPath:
    """Make a launcher of a copy that ``user`` can read, with what xbuild depends on."""
    library = os.path.join(place, "library")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(os.path.join(CHECKOUT, "xbuild"), f"{library}/xbuild", ignore=ignored)
    for data in ("binfmt", "known", "profiles"):
        shutil.copytree(os.path.join(CHECKOUT, data), f"{library}/xbuild/data/{data}")
    copy_distributions(library, "click", "rich", "pyelftools", "zstandard")
    python = _python_for(user)
    # As an installation is: the user, who cannot, would compile all modules at each start.
    subprocess.run([python, "-I", "-m", "compileall", "-q", library], check=True)
    subprocess.run(["chmod", "-R", "a+rX", place], check=True)
    return write_launcher(place, python, [library])


def _python_for(user: User) -> str:
    """Return a Python 3.11 or later that ``user`` can execute."""
    own = os.path.realpath(sys.executable)
    probe = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (own, *(f"/usr/bin/{name}" for name in _PYTHONS)):
        # By way of env: setpriv itself still has root's reach when it executes a program.
        if user.run(["env", python, "-ISE", "-c", probe], cwd="/").returncode == 0:
            return python
    require("ordinary_user", False, f"no Python 3.11 that {user.name} can execute: apt install it")
    raise AssertionError("require does not return")


def copy_distributions(library: str, *names: str) -> None:
    """Copy installed distributions, and what they depend on, to a directory of modules."""
    for name in _dependencies(*names):
        _copy_distribution(name, library)


def _dependencies(*names: str) -> Iterator[str]:
    seen: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        yield name
        pending += [_name(line) for line in requirements if "extra ==" not in line]


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None, requirement
    return found[0]


def _copy_distribution(name: str, library: str) -> None:
    distribution = importlib.metadata.distribution(name)
    for file in distribution.files or []:
        source = str(distribution.locate_file(file))
        if ".." in file.parts or "__pycache__" in file.parts or not os.path.exists(source):
            continue
        target = os.path.join(library, *file.parts)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(source, target)


def pip_install(programs: str, *arguments: str) -> None:
    """Install into the environment whose bin directory is ``programs``."""
    _pip(programs, "install", "--no-deps", "--no-warn-script-location", *arguments)


def pip_uninstall(programs: str, name: str) -> None:
    """Remove a package from that environment."""
    _pip(programs, "uninstall", "--yes", name)


def _pip(programs: str, *arguments: str) -> None:
    python = os.path.join(programs, "python")
    command = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    answer = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
