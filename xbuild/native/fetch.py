"""Fetch packages of a tree's distribution for this host's architecture, and unpack them.

apt of the host is the program, with lists and status of its own (``source.apt``); signatures are
checked, nothing is installed. Only packages with programs and libraries of this host are unpacked.
"""

from __future__ import annotations

import os
import subprocess

from xbuild.errors import DamagedPackage, PackageUnavailable
from xbuild.native.revision import same_revision
from xbuild.record import HostPath, Record
from xbuild.source.apt import Apt, Progress, available_versions, download

DEBIAN_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Debian's names of the hosts that native tools are made for, by ``binary.arch``'s."""

MULTIARCH = {
    "amd64": "x86_64-linux-gnu",
    "arm64": "aarch64-linux-gnu",
    "armel": "arm-linux-gnueabi",
    "armhf": "arm-linux-gnueabihf",
    "i386": "i686-linux-gnu",
    "loong64": "loongarch64-linux-gnu",
    "mips64el": "mips64el-linux-gnuabi64",
    "mipsel": "mipsel-linux-gnu",
    "ppc64el": "powerpc64le-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
    "s390x": "s390x-linux-gnu",
}
"""GNU triplets by Debian's architectures, as their compilers have them (dpkg's cputable)."""


class Wanted(Record):
    """A package to find: ``name`` as it is for this host, ``revision`` as the tree's version."""

    name: str
    revision: str


class Found(Record):
    """What the distribution offers: ``version`` fits; where it is ``""``, ``offered`` do not."""

    wanted: Wanted
    version: str
    offered: tuple[str, ...] = ()

    @property
    def difference(self) -> str:
        """Say why there is no package that fits."""
        if not self.offered:
            return f"the distribution has no package {self.wanted.name} for this host"
        return f"{self.wanted.name} is {', '.join(self.offered)}, not {self.wanted.revision}"


def find_packages(
    alternatives: tuple[Apt, ...], wanted: tuple[Wanted, ...], progress: Progress
) -> tuple[Found, ...]:
    """Ask the distribution which packages it has, and pick those of the tree's revisions.

    Raises MirrorUnavailable.
    """
    offered = available_versions(alternatives, tuple(w.name for w in wanted), progress)
    found = []
    for each in wanted:
        versions = offered.get(each.name, ())
        fitting = [version for version in versions if same_revision(each.revision, version)]
        found.append(Found(each, fitting[0] if fitting else "", versions))
    return tuple(found)


def fetch_packages(
    alternatives: tuple[Apt, ...],
    packages: tuple[tuple[str, str], ...],
    destination: HostPath,
    progress: Progress,
) -> tuple[str, ...]:
    """Download (name, version) pairs with what they depend on, and unpack them.

    Packages for all architectures (headers and libraries of the target) are left out. Returns the
    files' names. Raises MirrorUnavailable, PackageUnavailable, DamagedPackage.
    """
    names = tuple(f"{name}={version}" for name, version in packages)
    debs = [deb for deb in download(alternatives, names, progress) if not deb.endswith("_all.deb")]
    if not debs:
        raise PackageUnavailable(
            "Cannot fetch native tools: none of their packages is for a host",
            "without --native the tree's own programs do the work",
        )
    for number, deb in enumerate(debs):
        progress(f"unpacking {os.path.basename(deb)}", number / len(debs))
        _unpack(deb, destination)
    return tuple(os.path.basename(deb) for deb in debs)


def _unpack(deb: str, destination: HostPath) -> None:
    answer = subprocess.run(
        ["dpkg-deb", "--extract", deb, destination],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        reason = answer.stderr.strip()
        raise DamagedPackage(
            f"Cannot unpack {deb}: {reason}",
            "make room and try again"
            if "No space left" in reason or "Disk quota" in reason
            else "remove the file; it is fetched again",
        )
