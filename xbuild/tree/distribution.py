"""Which distribution a tree is, by os-release(5) or the older files that say so.

On the start path of ``xbuild run``.
"""

from __future__ import annotations

from xbuild.errors import TargetError
from xbuild.record import GuestPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.tree.resolve import TreeReader

OS_RELEASE = (GuestPath("/etc/os-release"), GuestPath("/usr/lib/os-release"))
# Files of one line that name the distribution, newest convention first; (path, id, name).
RELEASE_FILES = (
    (GuestPath("/etc/alpine-release"), "alpine", "Alpine Linux"),
    (GuestPath("/etc/openwrt_version"), "openwrt", "OpenWrt"),
    (GuestPath("/etc/gentoo-release"), "gentoo", "Gentoo"),
    (GuestPath("/etc/slackware-version"), "slackware", "Slackware"),
    (GuestPath("/etc/fedora-release"), "fedora", "Fedora Linux"),
    (GuestPath("/etc/redhat-release"), "rhel", "Red Hat Enterprise Linux"),
    (GuestPath("/etc/br-version"), "buildroot", "Buildroot"),
    (GuestPath("/etc/arch-release"), "arch", "Arch Linux"),
    (GuestPath("/etc/debian_version"), "debian", "Debian GNU/Linux"),
)
_LIMIT = 64 * 1024
_VALUE_LIMIT = 256


class Distribution(Record):
    """A distribution by os-release's terms: ``id`` is lower case, ``version`` is VERSION_ID.

    ``pretty_name`` is for people. Values are the tree's own words: untrusted text.
    """

    id: str
    name: str
    version: str = ""
    codename: str = ""
    pretty_name: str = ""
    like: tuple[str, ...] = ()


def read_distribution(reader: TreeReader) -> Distribution | None:
    """Return the distribution, or None where no file says; files that cannot be read do not."""
    for path in OS_RELEASE:
        text = _read(reader, path)
        if text is not None:
            fields = parse_os_release(text)
            if "ID" in fields or "NAME" in fields:
                return _from_os_release(fields)
    for path, identity, name in RELEASE_FILES:
        text = _read(reader, path)
        if text is not None:
            return _from_release_file(text, identity, name)
    return None


def parse_os_release(text: str) -> dict[str, str]:
    """Return the assignments of an os-release file; lines that are none are left out.

    Quoting is the shell's as far as os-release(5) allows it: single, double, backslash.
    """
    fields = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key.replace("_", "").isalnum():
            fields[key] = _unquoted(value.strip())[:_VALUE_LIMIT]
    return fields


def _unquoted(value: str) -> str:
    quote = value[:1]
    if quote not in ("'", '"'):
        return value
    inner = value[1:].partition(quote)[0] if quote == "'" else value[1:]
    if quote == "'":
        return inner
    plain = []
    characters = iter(inner)
    for character in characters:
        if character == '"':
            break
        plain.append(next(characters, "") if character == "\\" else character)
    return "".join(plain)


def _from_os_release(fields: dict[str, str]) -> Distribution:
    name = fields.get("NAME", "")
    identity = fields.get("ID", "").lower() or name.lower()
    version = fields.get("VERSION_ID", "")
    pretty = fields.get("PRETTY_NAME", "") or f"{name or identity} {version}".strip()
    return Distribution(
        identity,
        name or identity,
        version,
        fields.get("VERSION_CODENAME", ""),
        pretty,
        tuple(fields.get("ID_LIKE", "").split()),
    )


def _from_release_file(text: str, identity: str, name: str) -> Distribution:
    line = text.strip().partition("\n")[0].strip()[:_VALUE_LIMIT]
    words = line.split()
    numbered = [word for word in words if word[:1].isdigit()]
    version = numbered[-1] if numbered else ""
    codename = ""
    if identity == "debian" and not version:  # testing says "trixie/sid"
        codename = line.partition("/")[0]
    pretty = line if len(words) > 1 else f"{name} {line}".strip()
    return Distribution(identity, name, version, codename, pretty)


def _read(reader: TreeReader, path: GuestPath) -> str | None:
    try:
        return reader.read(path, _LIMIT).decode("utf-8", "replace")
    except TargetError:
        return None
