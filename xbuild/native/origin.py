"""Where native programs come from: packages of the tree's distribution, or a directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Protocol

from xbuild.errors import ProviderError
from xbuild.native.fetch import Wanted, fetch_packages, find_packages
from xbuild.native.programs import Program
from xbuild.record import HostPath, Record
from xbuild.source.apt import Apt, Progress
from xbuild.source.mirror import Mirror, find_mirrors
from xbuild.source.ubuntu import find_ubuntu_mirrors
from xbuild.tree.distribution import Distribution
from xbuild.tree.resolve import TreeReader

FRONTENDS = ("ccache", "distcc")
"""Packages that come with every set where the distribution has them: of any revision."""


_ROOM_BYTES = 192 << 20  # for a suite's package lists: apt-get waits for ever on a full disk


class Supply(Record):
    """Native programs to take from: ``unpacked`` is a root directory, scratch or somebody's.

    ``versions`` has what is used by package name, ``refused`` why a package is not; ``frontends``
    are programs that stand in for nothing of the tree's.
    """

    unpacked: HostPath
    is_scratch: bool
    versions: dict[str, str]
    refused: dict[str, str]
    frontends: tuple[str, ...] = ()


class Origin(Protocol):
    """A source of native programs: ``name`` in words, ``key`` what it decides of a set."""

    @property
    def name(self) -> str:
        """Where the programs come from, for people."""

    @property
    def key(self) -> str:
        """What of it decides the set, for recipes."""

    def supply(
        self, programs: tuple[Program, ...], cache: HostPath, work: HostPath, progress: Progress
    ) -> Supply:
        """Get what can be got for ``programs``: see Supply."""


def origin_of(
    reader: TreeReader, distribution: Distribution | None, architecture: str
) -> PackageOrigin:
    """Return where packages of a tree's distribution come from for a host of ``architecture``.

    Raises ProviderError for a tree of another distribution than Debian and Ubuntu.
    """
    suite = distribution.codename if distribution is not None else ""
    if distribution is not None and suite and distribution.id == "debian":
        return PackageOrigin("Debian", suite, architecture, find_mirrors)
    if distribution is not None and suite and distribution.id == "ubuntu":
        return PackageOrigin(
            "Ubuntu", suite, architecture, lambda: find_ubuntu_mirrors(reader, suite, architecture)
        )
    what = distribution.pretty_name if distribution is not None else "unknown distribution"
    raise ProviderError(
        f"Cannot fetch native tools for a tree of {what}",
        "name a tree of matching native tools: xbuild native prepare --provider DIR TARGET",
    )


class PackageOrigin:
    """The packages of a suite for this host; ``architecture`` is Debian's name of it."""

    def __init__(
        self,
        distribution: str,
        suite: str,
        architecture: str,
        mirrors: Callable[[], tuple[Mirror, ...]],
    ) -> None:
        self._distribution = distribution
        self._suite = suite
        self._architecture = architecture
        self._mirrors = mirrors

    @property
    def name(self) -> str:
        """Name the suite."""
        return f"{self._distribution} {self._suite} packages for {self._architecture}"

    @property
    def key(self) -> str:
        """Name the suite."""
        return f"{self._distribution.lower()} {self._suite} {self._architecture}"

    def supply(
        self, programs: tuple[Program, ...], cache: HostPath, work: HostPath, progress: Progress
    ) -> Supply:
        """Fetch and unpack packages below ``work``, downloads kept in ``cache``.

        Raises MirrorUnavailable, PackageUnavailable, DamagedPackage, and ProviderError where no
        package fits.
        """
        _require_room(work)
        alternatives = self._alternatives(cache, work)
        needed = (each for program in programs for each in (program.wanted, *program.also))
        wanted = tuple(dict.fromkeys(needed))
        fronts = tuple(Wanted(name, "") for name in FRONTENDS)
        found = find_packages(alternatives, (*wanted, *fronts), progress)
        versions = {f.wanted.name: f.version for f in found if f.version}
        refused = {
            f.wanted.name: f.difference for f in found if not f.version and f.wanted.revision
        }
        if not versions:
            raise ProviderError(
                f"No package of {self.name} is of the tree's revision: "
                + "; ".join(sorted(refused.values())),
                f"upgrade the tree, or set XBUILD_{self._distribution.upper()}_MIRROR to an archive"
                " of its day",
            )
        extra = {f.wanted.name: f.offered[0] for f in found if not f.wanted.revision and f.offered}
        unpacked = HostPath(os.path.join(work, "unpacked"))
        os.mkdir(unpacked)
        fetch_packages(alternatives, tuple((versions | extra).items()), unpacked, progress)
        fronts_at = tuple(f"usr/bin/{name}" for name in ("ccache", "distcc", "distccd"))
        return Supply(unpacked, True, versions, refused, fronts_at)

    def _alternatives(self, cache: HostPath, work: HostPath) -> tuple[Apt, ...]:
        """Return each mirror with the updates that trees are upgraded from, then without."""
        found: list[Apt] = []
        for mirror in self._mirrors():
            # Debian's security archive is one of its own, Ubuntu's is in each mirror.
            of_security = "-security" if self._distribution == "Debian" else ""
            updates = (
                (f"{mirror.uri}{of_security}", f"{self._suite}-security"),
                (mirror.uri, f"{self._suite}-updates"),
            )
            for also in (updates, ()):
                place = HostPath(f"{work}/apt-{len(found)}")
                pool = HostPath(f"{cache}/downloads")
                found.append(Apt(place, pool, self._architecture, self._suite, mirror, also))
        return tuple(found)


def _require_room(directory: HostPath) -> None:
    status = os.statvfs(directory)
    if status.f_bavail * status.f_frsize < _ROOM_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), directory)
