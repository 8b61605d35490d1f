"""Debian trees of any architecture, from the mirror that this host already uses.

Fetched once and kept: a second tree of the same suites, architecture and packages takes no network.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import subprocess
import tempfile

from xbuild.errors import SourceError
from xbuild.record import HostPath
from xbuild.source.apt import Apt, Progress, download
from xbuild.source.assemble import assemble
from xbuild.source.cache import cache_directory, locked, work_directory
from xbuild.source.mirror import find_mirrors

BASE_PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "diffutils", "findutils", "grep"),
    *("gzip", "hostname", "libc-bin", "mawk", "sed", "tar"),
)
"""A shell and the usual small programs: about 40 MB unpacked."""

COMPILER_PACKAGES = ("gcc", "libc6-dev", "make")

_FORMAT = "1"  # Part of the cache key: raise it when the same packages make another tree.
_OLDER_ONLY = frozenset(("armel", "mipsel", "mips64el", "i386"))
# "stable" is the same release as its codename, but a mirror in the middle of a point release may
# serve one of the two whole and not the other.
_NEWER_ONLY = {"riscv64": ("trixie", "stable", "forky", "sid"), "loong64": ("forky", "sid")}


def default_suites(architecture: str) -> tuple[str, ...]:
    """Return the suites that carry a Debian architecture, the one to try first leading."""
    if architecture in _NEWER_ONLY:
        return _NEWER_ONLY[architecture]
    return ("bookworm",) if architecture in _OLDER_ONLY else ("bookworm", "trixie")


def fetch_debian_tree(
    architecture: str,
    suites: tuple[str, ...],
    packages: tuple[str, ...],
    destination: HostPath,
    *,
    cache: HostPath | None = None,
    progress: Progress,
) -> HostPath:
    """Make the new directory ``destination`` a tree of ``packages`` and what they depend on.

    Owners are the packages' own when root calls, else the caller. ``destination`` appears whole
    or not at all. Raises SourceError as ``fetch_debian_archive`` and ``unpack_tree`` do.
    """
    archive = fetch_debian_archive(architecture, suites, packages, cache=cache, progress=progress)
    progress(f"unpacking to {destination}", None)
    return unpack_tree(archive, destination)


def fetch_debian_archive(
    architecture: str,
    suites: tuple[str, ...],
    packages: tuple[str, ...],
    *,
    cache: HostPath | None = None,
    progress: Progress,
) -> HostPath:
    """Return a tar archive of a tree, from the cache where it is there already.

    ``architecture`` is Debian's name; the first of ``suites`` that serves it wins; ``cache`` is by
    default xbuild's own (``cache_directory``).
    Raises MirrorUnavailable, PackageUnavailable or DamagedPackage.
    """
    directory = HostPath(os.path.join(cache or cache_directory(), "debian"))
    archive = HostPath(os.path.join(directory, _archive_name(architecture, suites, packages)))
    if os.path.exists(archive):
        return archive
    with locked(directory, progress):
        if not os.path.exists(archive):
            _make_archive(architecture, suites, packages, archive, progress)
    return archive


def unpack_tree(archive: HostPath, destination: HostPath) -> HostPath:
    """Unpack a tree beside ``destination``, then rename it there; modes are kept.

    Owners are kept when root calls. Raises SourceError when tar fails or the place is taken.
    """
    if os.path.lexists(destination):
        raise SourceError(
            f"Cannot make a tree at {destination}: it exists already",
            "remove it first, or name another",
        )
    parent = os.path.dirname(os.path.abspath(destination))
    os.makedirs(parent, exist_ok=True)
    work = tempfile.mkdtemp(prefix=f".{os.path.basename(destination)}-", dir=parent)
    owner = "--same-owner" if _may_chown() else "--no-same-owner"
    command = ["tar", "-x", "-p", "--numeric-owner", owner, "-f", archive, "-C", work]
    try:
        answer = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if answer.returncode != 0:
            raise SourceError(
                f"Cannot unpack {archive} to {parent}: {answer.stderr.strip()}",
                "make room there, or fetch it again: xbuild cache prune",
            )
        os.chmod(work, 0o755)
        os.rename(work, destination)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return destination


def _may_chown() -> bool:
    """Tell whether we are root over more than the one id that a plain user namespace maps."""
    with open("/proc/self/gid_map", encoding="ascii") as rows:
        mapped = sum(int(row.split()[2]) for row in rows)
    return os.geteuid() == 0 and mapped > 1


def _archive_name(architecture: str, suites: tuple[str, ...], packages: tuple[str, ...]) -> str:
    recipe = "\n".join((_FORMAT, architecture, *suites, "", *sorted(set(packages))))
    return f"{suites[0]}-{architecture}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.tar"


def _make_archive(
    architecture: str,
    suites: tuple[str, ...],
    packages: tuple[str, ...],
    archive: HostPath,
    progress: Progress,
) -> None:
    directory = HostPath(os.path.dirname(archive))
    with work_directory(directory) as work:
        debs = _download(architecture, suites, packages, work, progress)
        unfinished = HostPath(os.path.join(work, os.path.basename(archive)))
        assemble(debs, unfinished, progress)
        os.rename(unfinished, archive)


def _download(
    architecture: str,
    suites: tuple[str, ...],
    packages: tuple[str, ...],
    work: HostPath,
    progress: Progress,
) -> tuple[HostPath, ...]:
    pool = HostPath(os.path.join(os.path.dirname(work), "pool"))
    alternatives = tuple(
        Apt(HostPath(os.path.join(work, f"apt-{number}")), pool, architecture, suite, mirror)
        for number, (mirror, suite) in enumerate(itertools.product(find_mirrors(), suites))
    )
    return download(alternatives, packages, progress)
