"""What dpkg's database in a tree says: its packages and their revisions (dpkg-query(1)).

The tree's words are not trusted: names that are none are left out.
"""

from __future__ import annotations

import re

from xbuild.errors import TargetError
from xbuild.record import GuestPath, Record
from xbuild.tree.resolve import TreeReader

DIRECTORY = "/var/lib/dpkg"
LIMIT = 64 << 20  # bytes; a desktop's status file has 5 MB
_FIELD = re.compile(r"^(Package|Status|Architecture|Version|Source): *(.*)$", re.M)
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION = re.compile(r"[A-Za-z0-9.+~:-]+")


class Package(Record):
    """A package as the database has it; ``source`` is the name of what it was built from."""

    name: str
    architecture: str
    version: str
    source: str


def read_packages(reader: TreeReader) -> tuple[Package, ...]:
    """Return the packages of every architecture whose files are there; none without dpkg."""
    try:
        status = reader.read(GuestPath(f"{DIRECTORY}/status"), LIMIT)
    except TargetError:
        return ()
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
    return tuple(found)
