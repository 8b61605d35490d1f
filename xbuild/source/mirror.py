"""Where this host gets Debian packages from, as its own configuration says.

xbuild names no server: the host's apt sources do, in whatever format they are written, and apt
itself is asked to read them. A host of another distribution (Ubuntu) knows Debian's archive from
its debootstrap package.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from contextlib import suppress

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

_SECURITY = "http://security.debian.org/debian-security"


class Mirror(Record):
    """A copy of a distribution's archive, and the keyring that its signatures are checked with."""

    uri: str
    keyring: HostPath
    distribution: str = "Debian"
    components: str = "main"


def find_mirrors(keyring: HostPath | None = None) -> tuple[Mirror, ...]:
    """Return the mirrors to try, best first: named by environment, apt's sources, debootstrap.

    Checked with Debian's keyring unless another is named. Raises MirrorUnavailable when the host
    has none or names no Debian mirror.
    """
    keyring = keyring or find_keyring()
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
    return _bases(print_uris, DEBIAN_SUITES.__contains__)


def _bases(print_uris: str, is_wanted: Callable[[str], bool]) -> tuple[str, ...]:
    found = _INDEX.finditer(print_uris)
    return tuple(dict.fromkeys(m["base"] for m in found if is_wanted(m["suite"])))


def find_security_archive() -> str:
    """Return where Debian's security updates are: by the host's apt sources, else Debian's own."""

    def is_wanted(suite: str) -> bool:
        return suite.endswith("-security") and suite.removesuffix("-security") in DEBIAN_SUITES

    with suppress(FileNotFoundError):
        return next(iter(listed_bases(is_wanted)), _SECURITY)
    return _SECURITY


def find_keyring() -> HostPath:
    """Return the file with Debian's archive keys. Raises MirrorUnavailable."""
    for keyring in KEYRINGS:
        if os.path.exists(keyring):
            return keyring
    raise MirrorUnavailable(
        "Cannot check Debian's signatures: this host has no Debian archive keyring",
        "apt-get install debian-archive-keyring",
    )


def _mirrors_of_apt() -> tuple[str, ...]:
    try:
        return listed_bases(DEBIAN_SUITES.__contains__)
    except FileNotFoundError as error:
        raise MirrorUnavailable(
            "Cannot fetch Debian packages: this host has no apt-get", "use a Debian or Ubuntu host"
        ) from error


def listed_bases(is_wanted: Callable[[str], bool]) -> tuple[str, ...]:
    """Return the archives of the host's apt sources that have a suite that ``is_wanted``.

    Raises FileNotFoundError on a host without apt-get.
    """
    command = ["apt-get", "-o", "Debug::NoLocking=true", "--print-uris", "update"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return _bases(answer.stdout, is_wanted)


def _mirror_of_debootstrap(script: HostPath) -> tuple[str, ...]:
    if not os.path.exists(script):
        return ()
    with open(script, encoding="utf-8") as lines:
        found = re.search(r'^DEF_MIRROR="([^"$]+)"', lines.read(), re.MULTILINE)
    return (found[1],) if found else ()
