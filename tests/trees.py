"""Real foreign root filesystems for tests: fetched once, unpacked for each session, guarded.

``shared`` trees are read by many tests and must come out of each as they went in; ``fresh`` ones
belong to one test. Both lie under /var/tmp, where ordinary users can reach them (/root and
pytest's own directories are mode 0700).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.capability import require
from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath
from xbuild.source.debian import (
    BASE_PACKAGES,
    default_suites,
    fetch_debian_archive,
    unpack_tree,
)

if TYPE_CHECKING:
    from tests.users import User

FOREIGN_ARCHITECTURES = ("arm64", "armhf", "mipsel", "riscv64", "s390x")
"""Debian's names: little and big endian, 32 and 64 bits."""

MORE_ARCHITECTURES = ("armel", "mips64el", "ppc64el")


class TreeStore:
    """The trees of one test session, in a directory that goes with it."""

    def __init__(self, directory: HostPath) -> None:
        self._directory = directory
        self._shared: dict[tuple[str, str], HostPath] = {}
        self._pristine: dict[HostPath, str] = {}
        self._lent: set[HostPath] = set()
        self._unavailable: dict[tuple[str, ...], str] = {}

    def archive(self, architecture: str, more: tuple[str, ...] = ()) -> HostPath:
        """Return the tar archive of an architecture's trees with ``more`` packages."""
        key = (architecture, *more)
        if key not in self._unavailable:
            suites, packages = default_suites(architecture), (*BASE_PACKAGES, *more)
            try:
                return fetch_debian_archive(architecture, suites, packages, progress=_silent)
            except MirrorUnavailable as error:
                self._unavailable[key] = error.message
        require("mirror", False, self._unavailable[key])
        raise AssertionError("require does not return")

    def shared(self, architecture: str, owner: User | None = None) -> HostPath:
        """Return the session's tree of ``architecture``: to read and run, not to modify."""
        key = architecture, owner.name if owner else ""
        if key not in self._shared:
            self._shared[key] = tree = self.fresh(architecture, owner)
            self._pristine[tree] = tree_hash(tree)
        self._lent.add(self._shared[key])
        return self._shared[key]

    def fresh(
        self, architecture: str, owner: User | None = None, more: tuple[str, ...] = ()
    ) -> HostPath:
        """Return a new tree with ``more`` packages, owned by ``owner`` (whoever runs the tests)."""
        archive = self.archive(architecture, more)
        place = tempfile.mkdtemp(prefix=f"{architecture}-", dir=self._directory)
        tree = HostPath(os.path.join(place, "tree"))
        if owner is None or owner.is_self:
            os.chmod(place, 0o755)
            return unpack_tree(archive, tree)
        os.chown(place, owner.uid, owner.gid)
        os.mkdir(tree)
        os.chown(tree, owner.uid, owner.gid)
        with open(archive, "rb") as content:
            command = owner.argv(["tar", "-xp", "--no-same-owner", "-C", tree])
            subprocess.run(command, stdin=content, check=True)
        return tree

    def forget_modified(self) -> list[HostPath]:
        """Return the shared trees that no longer are as unpacked, and stop sharing them.

        Those are looked at that were lent since the last look.
        """
        modified = [tree for tree in sorted(self._lent) if tree_hash(tree) != self._pristine[tree]]
        self._lent.clear()
        for tree in modified:
            del self._pristine[tree]
        self._shared = {k: tree for k, tree in self._shared.items() if tree not in modified}
        return modified


def tree_hash(tree: str) -> str:
    """Digest every name, mode, owner, size, device, link target, mtime and ctime of a tree.

    Contents are not read: no write leaves a ctime as it was. Nor does it change any atime that
    it covers, as there is none in it.
    """
    digest = hashlib.sha256()
    for line in _metadata(tree):
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _metadata(tree: str) -> Iterator[str]:
    pending = [tree]
    while pending:
        path = pending.pop()
        status = os.lstat(path)
        facts = (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_rdev)
        times = (status.st_mtime_ns, status.st_ctime_ns, status.st_nlink, status.st_ino)
        yield f"{path[len(tree) :]}\0{facts}{times}\n"
        if os.path.isdir(path) and not os.path.islink(path):
            with os.scandir(path) as entries:
                pending.extend(sorted(entry.path for entry in entries))


def _silent(_text: str, _fraction: float | None) -> None:
    """Keep the progress of a fetch out of the tests' output."""
