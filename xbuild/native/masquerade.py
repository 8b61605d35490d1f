"""Directories of links that stand before a tree's compilers on PATH, as ccache and distcc want it.

Shown inside at a place of its own: the tree has no link more than before. Which names a tree's
compilers have is read from it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile

from xbuild.errors import HostUnable, TargetError, UsageError
from xbuild.plan.make import DEFAULT_PATH
from xbuild.plan.request import BindRequest, Request
from xbuild.plan.steps import Bind, Plan
from xbuild.record import GuestPath, HostPath, replace
from xbuild.toolset.manifest import INSIDE, native_directory
from xbuild.tree.resolve import DirectoryReader

_DIRECTORIES = (GuestPath("/usr/local/bin"), GuestPath("/usr/bin"))
_COMPILER = re.compile(
    r"(?:[a-z0-9_]+-(?:[a-z0-9]+-)?linux-[a-z0-9_]+-)?(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+)"
    r"(?:-[0-9]+(?:\.[0-9]+)*)?"
)


def compilers_in(reader: DirectoryReader) -> dict[str, GuestPath]:
    """Return the C and C++ compilers on a tree's PATH: the file of each name, links followed."""
    found: dict[str, GuestPath] = {}
    for directory in _DIRECTORIES:
        try:
            names = reader.listdir(directory)
        except TargetError:
            continue
        for name in sorted(names):
            if name not in found and _COMPILER.fullmatch(name):
                try:
                    found[name] = reader.resolve(GuestPath(f"{directory}/{name}"))
                except TargetError:
                    continue  # a dangling link
    return found


def stand_before(
    request: Request, frontend: str, names: tuple[str, ...], environment: dict[str, str]
) -> Request:
    """Return ``request`` with ``frontend`` of the set called by the ``names`` of compilers.

    What the user sets wins over ``environment``. Raises UsageError, HostUnable.
    """
    if request.native == "off":
        request = replace(request, native="exact")
    if not names:
        raise UsageError(
            f"--{frontend} has nothing to stand before: {request.target} has no C or C++ compiler",
            "install a compiler in the tree, or leave the option out",
        )
    inside = GuestPath(f"/run/xbuild/{frontend}/bin")
    said = dict(request.environment)
    path = said.pop("PATH", DEFAULT_PATH)
    return replace(
        request,
        binds=(*request.binds, BindRequest(_links(frontend, names), inside, read_only=True)),
        environment=tuple({**environment, **said, "PATH": f"{inside}:{path}"}.items()),
    )


def check_frontend(plan: Plan, frontend: str) -> None:
    """Raise HostUnable where the set of a plan has no ``frontend``."""
    for step in plan.steps:
        if isinstance(step, Bind) and step.target.endswith(INSIDE.removeprefix("/run")):
            if os.path.exists(f"{step.source}/usr/bin/{frontend}"):
                return
            raise HostUnable(
                f"The set of native tools for {plan.target} has no {frontend}",
                f"xbuild native prepare --again {plan.target}; its suite may have none",
            )
    raise HostUnable(
        f"{plan.target} runs without native tools, and so without a native {frontend}",
        f"install {frontend} in the tree",
    )


def native_place(name: str) -> HostPath:
    """Return a directory below the cache of native tools. Raises HostUnable without a home."""
    directory = native_directory()
    if directory is None:
        raise HostUnable("No place for native tools: HOME is not set", "set XDG_CACHE_HOME")
    return HostPath(f"{directory}/{name}")


def _links(frontend: str, names: tuple[str, ...]) -> HostPath:
    """Return a directory with a link of each name and its own, made once for the same names."""
    links = (frontend, *names)
    digest = hashlib.sha256("\n".join(links).encode()).hexdigest()[:16]
    place = native_place(f"masquerade/{frontend}-{digest}")
    if os.path.isdir(place):
        return place
    os.makedirs(os.path.dirname(place), exist_ok=True)
    work = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(place))
    try:
        for name in links:
            os.symlink(f"{INSIDE}/usr/bin/{frontend}", f"{work}/{name}")
        os.chmod(work, 0o755)
        os.rename(work, place)
    except OSError:
        shutil.rmtree(work, ignore_errors=True)
        if not os.path.isdir(place):  # another process was faster
            raise
    return place
