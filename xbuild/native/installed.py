"""What dpkg's database in a tree says: packages, their revisions and their files (dpkg-query(1)).

The tree's words are not trusted: names that are none are left out, and only regular files count.
"""

from __future__ import annotations

import re
from collections import Counter

from xbuild.errors import TargetError
from xbuild.record import GuestPath, Record
from xbuild.tree.resolve import TreeReader

_DIRECTORY = "/var/lib/dpkg"
_LIMIT = 64 << 20  # bytes; a desktop's status file has 5 MB
_FIELD = re.compile(r"^(Package|Status|Architecture|Version|Source): *(.*)$", re.M)
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION = re.compile(r"[A-Za-z0-9.+~:-]+")


class Package(Record):
    """A package as the database has it; ``source`` is the name of what it was built from."""

    name: str
    architecture: str
    version: str
    source: str


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
    try:
        status = reader.read(GuestPath(f"{_DIRECTORY}/status"), _LIMIT)
    except TargetError:
        return None
    found = []
    for paragraph in status.decode("utf-8", "replace").split("\n\n"):
        fields: dict[str, str] = dict(_FIELD.findall(paragraph))
        state = fields.get("Status", "").split()
        name, version = fields.get("Package", ""), fields.get("Version", "")
        if len(state) != 3 or state[2] in ("not-installed", "config-files"):
            continue
        if _NAME.fullmatch(name) and _VERSION.fullmatch(version):
            source = fields.get("Source", name).split(" ")[0]
            found.append(Package(name, fields.get("Architecture", ""), version, source))
    counts = Counter(package.architecture for package in found if package.architecture != "all")
    if not counts:
        return None
    main = counts.most_common(1)[0][0]
    return Database(main, tuple(p for p in found if p.architecture in (main, "all")))


def package_files(reader: TreeReader, package: Package) -> tuple[GuestPath, ...]:
    """Return the paths that a package owns, as its list names them; none where it has no list."""
    for name in (f"{package.name}:{package.architecture}", package.name):
        try:
            text = reader.read(GuestPath(f"{_DIRECTORY}/info/{name}.list"), _LIMIT)
        except TargetError:
            continue
        lines = text.decode("utf-8", "surrogateescape").splitlines()
        return tuple(GuestPath(line) for line in lines if line.startswith("/"))
    return ()
