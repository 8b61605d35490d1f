"""The lines of sources.list(5) that a distribution's tree is made from, and those that it keeps.

Ubuntu's trees are made from all that they keep. Debian's are made from the release alone, which
changes at its point releases only, and so does not depend on whether archives are in step; what
comes after it is for apt inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbuild.source import ubuntu
from xbuild.source.mirror import DEBIAN_SUITES, Mirror, find_security_archive

if TYPE_CHECKING:
    from xbuild.source.kinds import Suite

# Released or about to be; a name that is not known may have no suites of updates, without which
# apt-get update would fail inside.
_WITH_UPDATES = DEBIAN_SUITES - {"unstable", "sid", "oldoldstable", "duke"}


def sources_of(suite: Suite, mirror: Mirror, keyring: str) -> tuple[str, ...]:
    """Return what a tree is made from, with the path of a keyring unless that is ""."""
    if suite.distribution == "ubuntu":
        return _lines(ubuntu.sources_of(mirror.uri, suite.suite), mirror, keyring)
    return _lines((ubuntu.Source(mirror.uri, suite.suite),), mirror, keyring)


def updates_of(suite: Suite, mirror: Mirror, keyring: str) -> tuple[str, ...]:
    """Return what a tree has in its sources besides; nothing where a mirror was named for it."""
    name = suite.suite
    if suite.distribution == "ubuntu" or suite.mirror is not None or name not in _WITH_UPDATES:
        return ()
    updates = ubuntu.Source(mirror.uri, f"{name}-updates")
    security = ubuntu.Source(find_security_archive(), f"{name}-security")
    return _lines((updates, security), mirror, keyring)


def _lines(archives: tuple[ubuntu.Source, ...], mirror: Mirror, keyring: str) -> tuple[str, ...]:
    signed_by = f"[signed-by={keyring}] " if keyring else ""
    return tuple(f"deb {signed_by}{a.uri} {a.suite} {mirror.components}" for a in archives)
