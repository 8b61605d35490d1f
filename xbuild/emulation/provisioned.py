"""Interpreters in the user's cache, several versions side by side, as ``xbuild setup`` puts them.

Scope: reading ``$XDG_CACHE_HOME/xbuild/qemu/VERSION/qemu-ARCH``. A version's directory is written
whole or not at all (``source.qemu``), and is believed where it is the caller's own.
"""

from __future__ import annotations

import os
import stat

from xbuild.emulation.facts import cache_place
from xbuild.emulation.versions import parse_version
from xbuild.record import HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.binary.arch import Arch

CACHE_NAME = "qemu"


class Provisioned(Record):
    """One version in the cache: ``arches`` are names of those it has an interpreter for, sorted."""

    version: str
    directory: HostPath
    arches: tuple[str, ...]

    def path(self, arch: Arch) -> HostPath:
        """Return where the interpreter for ``arch`` is, or would be."""
        return HostPath(f"{self.directory}/qemu-{arch.name}")


def provisioned_versions() -> tuple[Provisioned, ...]:
    """Return all versions in the cache, the newest first; none where it is someone else's."""
    place = cache_place(CACHE_NAME)
    if place is None or not _is_own_directory(place):
        return ()
    found = []
    for name in os.listdir(place):
        directory = HostPath(f"{place}/{name}")
        if parse_version(name) and _is_own_directory(directory):
            files = sorted(os.listdir(directory))
            arches = tuple(file[5:] for file in files if file.startswith("qemu-"))
            found.append(Provisioned(name, directory, arches))
    return tuple(sorted(found, key=lambda each: parse_version(each.version), reverse=True))


def newest_provisioned(arch: Arch) -> HostPath | None:
    """Return the newest interpreter for ``arch`` in the cache, None where there is none."""
    for each in provisioned_versions():
        if arch.name in each.arches:
            return each.path(arch)
    return None


def _is_own_directory(path: HostPath) -> bool:
    """Under sudo with a user's HOME, what is in the cache is someone else's word."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
