"""dpkg's database for packages that were unpacked without dpkg (dpkg(1), deb-control(5)).

Every package is in the state "install ok unpacked": its files are there, its maintainer scripts
have not run. The format of /var/lib/dpkg is dpkg's own; doc/README.feature-* and lib/dpkg/infodb*.c
of its source describe it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from xbuild.record import Record

DIRECTORY = "var/lib/dpkg"
_NAME = re.compile(r"^Package: (\S+)$", re.M)
_ARCHITECTURE = re.compile(r"^Architecture: (\S+)$", re.M)
_IS_COINSTALLABLE = re.compile(r"^Multi-Arch: same$", re.M)


class Package(Record):
    """The control members of a package by name, all paths it owns, its conffiles' content."""

    control: dict[str, bytes]
    paths: tuple[str, ...]


def database_files(packages: Iterable[Package]) -> Iterator[tuple[str, bytes, int]]:
    """Yield path, content and mode of each file of the database."""
    status = []
    for package in packages:
        text = package.control["control"].decode().strip()
        status.append(_NAME.sub(r"\g<0>\nStatus: install ok unpacked", text, count=1) + "\n")
        prefix = f"{DIRECTORY}/info/{_info_name(text)}"
        yield f"{prefix}.list", "".join(path + "\n" for path in package.paths).encode(), 0o644
        for name, content in package.control.items():
            if name != "control":
                yield f"{prefix}.{name}", content, 0o755 if content.startswith(b"#!") else 0o644
    yield f"{DIRECTORY}/info/format", b"1\n", 0o644
    yield f"{DIRECTORY}/status", "\n".join(status).encode(), 0o644
    for name in ("available", "diversions", "statoverride"):
        yield f"{DIRECTORY}/{name}", b"", 0o644


def _info_name(control: str) -> str:
    name, architecture = _NAME.search(control), _ARCHITECTURE.search(control)
    assert name is not None
    assert architecture is not None
    return f"{name[1]}:{architecture[1]}" if _IS_COINSTALLABLE.search(control) else name[1]
