"""The packages of a tree's main architecture, and their files (dpkg-query(1))."""

from __future__ import annotations

from collections import Counter

from xbuild.errors import TargetError
from xbuild.record import GuestPath, Record
from xbuild.tree.dpkg import DIRECTORY, LIMIT, Package, read_packages
from xbuild.tree.resolve import TreeReader


class Database(Record):
    """The packages of one tree: ``architecture`` is the one that most of them are of."""

    architecture: str
    packages: tuple[Package, ...]

    def named(self, name: str) -> Package | None:
        """Return the package of that name in the tree's main architecture."""
        return next((package for package in self.packages if package.name == name), None)


def read_database(reader: TreeReader) -> Database | None:
    """Return the packages whose files are there; None for a tree without dpkg.

    Packages of further architectures (multiarch) are left out: their programs are not the tree's.
    """
    found = read_packages(reader)
    counts = Counter(package.architecture for package in found if package.architecture != "all")
    if not counts:
        return None
    main = counts.most_common(1)[0][0]
    return Database(main, tuple(p for p in found if p.architecture in (main, "all")))


def package_files(reader: TreeReader, package: Package) -> tuple[GuestPath, ...]:
    """Return the paths that a package owns, as its list names them; none where it has no list."""
    for name in (f"{package.name}:{package.architecture}", package.name):
        try:
            text = reader.read(GuestPath(f"{DIRECTORY}/info/{name}.list"), LIMIT)
        except TargetError:
            continue
        lines = text.decode("utf-8", "surrogateescape").splitlines()
        return tuple(GuestPath(line) for line in lines if line.startswith("/"))
    return ()
