"""Where this host gets Debian packages from, as its own configuration says.

xbuild names no server: the host's apt sources do, in whatever format they are written, and apt
itself is asked to read them. A host of another distribution (Ubuntu) knows Debian's archive from
its debootstrap package.
"""

from __future__ import annotations

import os
import re
import subprocess

from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath, Record

MIRROR_VARIABLE = "XBUILD_DEBIAN_MIRROR"
DEBOOTSTRAP = HostPath("/usr/sbin/debootstrap")
KEYRINGS = (
    HostPath("/usr/share/keyrings/debian-archive-keyring.gpg"),
    HostPath("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
# Suites that are Debian's own; a third party's repository seldom carries one of these names
# undecorated, and where it does, its signature is not by a Debian archive key.
DEBIAN_SUITES = frozenset(
    (
        *("stable", "oldstable", "oldoldstable", "testing", "unstable", "sid"),
        *("bullseye", "bookworm", "trixie", "forky", "duke"),
    )
)

_INDEX = re.compile(
    r"^'(?P<base>[^']+)/dists/(?P<suite>[^']+)/(?:InRelease|Release)'", re.MULTILINE
)


class Mirror(Record):
    """A copy of Debian's archive, and the keyring that its signatures are checked with."""

    uri: str
    keyring: HostPath


def find_mirrors() -> tuple[Mirror, ...]:
    """Return the mirrors to try, best first: named by environment, apt's sources, debootstrap.

    Raises MirrorUnavailable when the host has no Debian keyring or names no Debian mirror.
    """
    keyring = _find_keyring()
    named = os.environ.get(MIRROR_VARIABLE)
    uris = [named] if named else [*_mirrors_of_apt(), *_mirror_of_debootstrap(DEBOOTSTRAP)]
    if not uris:
        raise MirrorUnavailable(
            "Cannot tell where to get Debian packages: the apt sources name no Debian suite",
            f"apt-get install debootstrap, or set {MIRROR_VARIABLE} to a mirror's URL",
        )
    return tuple(Mirror(uri.rstrip("/"), keyring) for uri in dict.fromkeys(uris))


def debian_bases(print_uris: str) -> tuple[str, ...]:
    """Pick the archives that carry a Debian suite from ``apt-get --print-uris update``."""
    found = _INDEX.finditer(print_uris)
    return tuple(dict.fromkeys(m["base"] for m in found if m["suite"] in DEBIAN_SUITES))


def _find_keyring() -> HostPath:
    for keyring in KEYRINGS:
        if os.path.exists(keyring):
            return keyring
    raise MirrorUnavailable(
        "Cannot check Debian's signatures: this host has no Debian archive keyring",
        "apt-get install debian-archive-keyring",
    )


def _mirrors_of_apt() -> tuple[str, ...]:
    command = ["apt-get", "-o", "Debug::NoLocking=true", "--print-uris", "update"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MirrorUnavailable(
            "Cannot fetch Debian packages: this host has no apt-get", "use a Debian or Ubuntu host"
        ) from error
    return debian_bases(answer.stdout)


def _mirror_of_debootstrap(script: HostPath) -> tuple[str, ...]:
    if not os.path.exists(script):
        return ()
    with open(script, encoding="utf-8") as lines:
        found = re.search(r'^DEF_MIRROR="([^"$]+)"', lines.read(), re.MULTILINE)
    return (found[1],) if found else ()
