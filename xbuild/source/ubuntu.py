"""Where packages of an Ubuntu suite come from, for an architecture that need not be the host's.

Ubuntu keeps its architectures apart: those of PCs in one archive, all others in ``ubuntu-ports``.
So the sources of an arm64 tree do not serve an amd64 host, and are led to those that do. A tree may
name servers, since what comes is checked; by keys of the host's alone, never by the tree's.
"""

from __future__ import annotations

import os
import re

from xbuild.emulation.packages import package_command
from xbuild.errors import MirrorUnavailable, TargetError
from xbuild.record import GuestPath, HostPath, Record
from xbuild.source.mirror import Mirror, listed_bases
from xbuild.tree.resolve import TreeReader

MIRROR_VARIABLE = "XBUILD_UBUNTU_MIRROR"
KEYRING_VARIABLE = "XBUILD_UBUNTU_KEYRING"
KEYRING = HostPath("/usr/share/keyrings/ubuntu-archive-keyring.gpg")

COMPONENTS = "main restricted universe multiverse"
"""What Ubuntu's own images have in their sources."""

_COMPONENTS_FOR_TOOLS = "main universe"
_OF_PCS = frozenset(("amd64", "i386"))
_ARCHIVE, _PORTS = "ubuntu", "ubuntu-ports"
_CENTRAL = re.compile(r"(?:[a-z0-9-]+\.)?(?:archive|security|ports)\.ubuntu\.com")
_CENTRAL_ARCHIVE = f"http://archive.ubuntu.com/{_ARCHIVE}"
_OF_SECURITY = f"http://security.ubuntu.com/{_ARCHIVE}"
_URI = re.compile(r"https?://(?P<server>[A-Za-z0-9.:-]+)(?P<path>/[A-Za-z0-9._~%+/-]*)?")
_SOURCES = GuestPath("/etc/apt/sources.list")
_PARTS = GuestPath("/etc/apt/sources.list.d")
_LIMIT = 1 << 20  # bytes of a file of sources
_ONE_LINE = re.compile(r"deb\s+(?:\[[^\]]*\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)(?:\s.*)?")


class Source(Record):
    """One archive and suite that apt sources name."""

    uri: str
    suite: str


def find_ubuntu_mirrors(reader: TreeReader, codename: str, architecture: str) -> tuple[Mirror, ...]:
    """Return the mirrors to try for a suite's packages of an ``architecture``, Debian's name.

    The one that the environment names, or the host's own where it is an Ubuntu, then the tree's.
    Raises MirrorUnavailable where there is none, or no key to check it by.
    """
    keyring = find_keyring()
    named = _named_mirror()
    uris = (named,) if named else (*_of_host(), *_of_tree(reader, codename))
    found = dict.fromkeys(each for uri in uris for each in archives_for(uri, architecture))
    if not found:
        raise MirrorUnavailable(
            f"Cannot tell where to get packages of Ubuntu {codename}: neither the host's apt"
            f" sources nor those of {reader.label} name an archive of it",
            f"set {MIRROR_VARIABLE} to a mirror's URL",
        )
    return tuple(Mirror(uri, keyring, "Ubuntu", _COMPONENTS_FOR_TOOLS) for uri in found)


def find_archives(architecture: str) -> tuple[str, ...]:
    """Return the archives to try for a new tree of an ``architecture``, Debian's name.

    The one that the environment names, or the host's own where it is an Ubuntu, then Ubuntu's.
    Raises MirrorUnavailable where the environment names none.
    """
    named = _named_mirror()
    uris = (named,) if named else (*_of_host(), _CENTRAL_ARCHIVE)
    found = dict.fromkeys(each for uri in uris for each in archives_for(uri, architecture))
    if not found:
        raise MirrorUnavailable(
            f"{MIRROR_VARIABLE} names no archive: {named}", "such as http://mirror.example/ubuntu"
        )
    return tuple(found)


def sources_of(uri: str, codename: str) -> tuple[Source, ...]:
    """Return what a tree of a suite has in its sources: the suite, its updates, those of security.

    Ubuntu has a server of its own for security updates of PCs; any other archive carries them.
    """
    at_center = _CENTRAL.fullmatch(uri.partition("://")[2].partition("/")[0]) is not None
    security = _OF_SECURITY if at_center and uri.endswith(f"/{_ARCHIVE}") else uri
    return (
        Source(uri, codename),
        Source(uri, f"{codename}-updates"),
        Source(security, f"{codename}-security"),
    )


def archives_for(uri: str, architecture: str) -> tuple[str, ...]:
    """Return where an archive of Ubuntu has the packages of an architecture; none for no archive.

    A mirror that carries one half of Ubuntu is asked for the other one beside it.
    """
    parts = _URI.fullmatch(uri.rstrip("/"))
    if parts is None:
        return ()
    wanted = _ARCHIVE if architecture in _OF_PCS else _PORTS
    above, _, last = (parts["path"] or "").rpartition("/")
    if last not in (_ARCHIVE, _PORTS) or last == wanted:
        return (uri.rstrip("/"),)
    scheme, server = uri.partition("://")[0], parts["server"]
    if _CENTRAL.fullmatch(server):
        server = "archive.ubuntu.com" if wanted == _ARCHIVE else "ports.ubuntu.com"
    return (f"{scheme}://{server}{above}/{wanted}",)


def parse_sources(text: str, *, is_deb822: bool) -> tuple[Source, ...]:
    """Return what a file of apt sources names, of binary packages and enabled (sources.list(5))."""
    return tuple(_parse_deb822(text) if is_deb822 else _parse_lines(text))


def _parse_lines(text: str) -> list[Source]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    found = (_ONE_LINE.fullmatch(line) for line in lines)
    return [Source(each["uri"].rstrip("/"), each["suite"]) for each in found if each is not None]


def _parse_deb822(text: str) -> list[Source]:
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    found = []
    for paragraph in re.split(r"\n[ \t]*\n", "\n".join(lines)):
        unfolded = re.sub(r"\n[ \t]+", " ", paragraph)
        pairs = (line.partition(":") for line in unfolded.splitlines())
        fields = {name.strip().lower(): value.split() for name, _, value in pairs}
        is_off = "no" in (word.lower() for word in fields.get("enabled", ()))
        if "deb" in fields.get("types", ()) and not is_off:
            found += [
                Source(uri.rstrip("/"), suite)
                for uri in fields.get("uris", ())
                for suite in fields.get("suites", ())
            ]
    return found


def _named_mirror() -> str:
    return os.environ.get(MIRROR_VARIABLE, "").rstrip("/")


def _of_host() -> tuple[str, ...]:
    bases = listed_bases(lambda suite: suite.endswith("-updates"))  # which no PPA has
    return tuple(uri for uri in bases if uri.rpartition("/")[2] in (_ARCHIVE, _PORTS))


def _of_tree(reader: TreeReader, codename: str) -> tuple[str, ...]:
    try:
        parts = [GuestPath(f"{_PARTS}/{name}") for name in sorted(reader.listdir(_PARTS))]
    except TargetError:
        parts = []
    found: list[Source] = []
    for path in (_SOURCES, *parts):
        if path.endswith((".list", ".sources")):
            try:
                text = reader.read(path, _LIMIT).decode("utf-8", "replace")
            except TargetError:
                continue
            found += parse_sources(text, is_deb822=path.endswith(".sources"))
    return tuple(dict.fromkeys(source.uri for source in found if source.suite == codename))


def find_keyring(option: str = KEYRING_VARIABLE) -> HostPath:
    """Return the file with the keys of Ubuntu's archive; ``option`` is what names another one.

    Raises MirrorUnavailable.
    """
    named = os.environ.get(KEYRING_VARIABLE)
    keyring = HostPath(os.path.abspath(named)) if named else KEYRING
    if os.path.exists(keyring):
        return keyring
    raise MirrorUnavailable(
        f"Cannot check Ubuntu's signatures: {keyring} is not there",
        f"{package_command('ubuntu-keyring')} (Debian has it from 13 on); or take that file from an"
        f" Ubuntu that you trust, and name it with {option}",
        is_lasting=True,
    )
