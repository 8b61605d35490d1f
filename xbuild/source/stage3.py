"""Gentoo's stage3 archives: the latest of a variant, as its release engineering has signed it.

Of a mirror's releases/ARCH/autobuilds: ``latest-stage3-VARIANT.txt`` names the archive and its
size, ``ARCHIVE.DIGESTS`` its digests, both signed texts; ``ARCHIVE.asc`` is a detached signature.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import time
from collections.abc import Iterator

from xbuild.errors import DownloadFailed, SignatureRefused, SourceError, UsageError
from xbuild.record import HostPath, Record
from xbuild.source.apt import Progress
from xbuild.source.download import Downloaded, Patience, Wanted, downloaded, read_url
from xbuild.source.http import with_scheme
from xbuild.source.openpgp import Signature, require_keyring, verify_file, verify_text

MIRROR = "https://distfiles.gentoo.org"
KEYRING = HostPath("/usr/share/openpgp-keys/gentoo-release.asc")
_KEYRING_HINT = (
    "--keyring FILE names Gentoo's release keys: of the package"
    " sec-keys/openpgp-keys-gentoo-release, or from www.gentoo.org/downloads/signatures"
)
_LIST_LIMIT = 1 << 20
_OLD_DAYS = 60

_DIRECTORIES = {
    "alpha": "alpha",
    "amd64": "amd64",
    "arm64": "arm64",
    "aarch64": "arm64",
    "armv": "arm",
    "hppa": "hppa",
    "i486": "x86",
    "i686": "x86",
    "ia64": "ia64",
    "loong": "loong",
    "m68k": "m68k",
    "mips": "mips",
    "power": "ppc",
    "ppc": "ppc",
    "rv": "riscv",
    "s390": "s390",
    "sh": "sh",
    "sparc": "sparc",
    "x32": "amd64",
    "x86": "x86",
}
"""Where a variant is below releases/, by how it begins."""

_VARIANT = re.compile(r"[a-z0-9][\w.-]*")
_PATH = re.compile(r"(?:\d[\w.]*/)?stage3-[\w.-]+\.tar\.\w+")
_SHA512 = re.compile(r"^# SHA512 HASH\n(?P<digest>[0-9a-f]{128}) +(?P<name>\S+)$", re.M)
_TIME = re.compile(r"^# ts=(\d+)$", re.M)


class Latest(Record):
    """What the list says of the newest archive; ``made_at`` is 0 where it does not say when."""

    path: str
    size_bytes: int
    made_at: int


@contextlib.contextmanager
def fetched_stage3(
    variant: str, mirror: str, keyring: HostPath, *, patience: Patience, progress: Progress
) -> Iterator[Downloaded]:
    """Lend the latest archive of a variant, with its signatures and digests checked.

    Raises UsageError for what is no variant, SignatureRefused, WrongDigest, DownloadFailed.
    """
    listed = list_of(variant, mirror, keyring)
    latest = _read_latest(listed, variant, keyring, patience, progress)
    url = f"{posixpath.dirname(listed)}/{latest.path}"
    digest = _read_digest(url, keyring, patience, progress)
    signature = _read_optional(f"{url}.asc", patience, progress)
    if not digest and not signature:
        raise SignatureRefused(
            f"{url} cannot be checked: the mirror has neither its .DIGESTS nor its .asc",
            "try another mirror: --mirror URL",
        )
    wanted = Wanted(url, sha512=digest, size_bytes=latest.size_bytes, is_checked=True)
    with downloaded(wanted, patience=patience, progress=progress) as found:
        if signature:
            _tell(verify_file(found.path, signature, keyring, what=url), wanted.name, progress)
        yield found


def list_of(variant: str, mirror: str, keyring: HostPath) -> str:
    """Return the URL of a variant's list. Raises UsageError, and SignatureRefused without keys."""
    require_keyring(keyring, _KEYRING_HINT)
    base = f"{with_scheme(mirror).rstrip('/')}/releases/{release_directory(variant)}/autobuilds"
    return f"{base}/latest-stage3-{variant}.txt"


def parse_latest(text: str, variant: str) -> Latest:
    """Read what is signed of the list. Raises SourceError where it names no such archive."""
    made_at = _TIME.search(text)
    for line in text.splitlines():
        words = line.split()
        if line.startswith("#") or not words:
            continue
        name = posixpath.basename(words[0])
        size = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        if _PATH.fullmatch(words[0]) and name.startswith(f"stage3-{variant}-"):
            return Latest(words[0], size, int(made_at[1]) if made_at else 0)
    raise SourceError(
        f"The mirror's list of stage3 archives names none of {variant}",
        "docs/trees.md has some; the mirror's releases/ARCH/autobuilds/ has all",
    )


def parse_digest(text: str, name: str) -> str:
    """Return the SHA-512 digest of a file from what is signed of DIGESTS, "" where it has none."""
    for found in _SHA512.finditer(text):
        if posixpath.basename(found["name"]) == name:
            return found["digest"]
    return ""


def release_directory(variant: str) -> str:
    """Return where a variant is below releases/. Raises UsageError for what is no variant."""
    for beginning, directory in _DIRECTORIES.items():
        if variant.startswith(beginning) and _VARIANT.fullmatch(variant):
            return directory
    raise UsageError(
        f"No variant of stage3 is called {variant!r}",
        "such as arm64-openrc, armv7a_hardfp-systemd, rv64_lp64d-openrc",
    )


def _read_latest(
    url: str, variant: str, keyring: HostPath, patience: Patience, progress: Progress
) -> Latest:
    progress(f"reading {url}", None)
    try:
        text = _read(url, patience, progress)
    except DownloadFailed as error:
        if error.http_status != 404:
            raise
        raise DownloadFailed(
            f"The mirror has no stage3 archive of {variant}: {url} is not there (404)",
            f"see what there is: {posixpath.dirname(url)}/",
            http_status=404,
        ) from error
    content, signature = verify_text(text, keyring, what=url)
    _tell(signature, posixpath.basename(url), progress)
    latest = parse_latest(content.decode("utf-8", "replace"), variant)
    days = (time.time() - latest.made_at) / 86400
    if latest.made_at and days > _OLD_DAYS:
        progress(f"the mirror's latest is {days:.0f} days old: others may have newer ones", None)
    return latest


def _read_digest(url: str, keyring: HostPath, patience: Patience, progress: Progress) -> str:
    text = _read_optional(f"{url}.DIGESTS", patience, progress)
    if not text:
        return ""
    content, _ = verify_text(text, keyring, what=f"{url}.DIGESTS")
    digest = parse_digest(content.decode("utf-8", "replace"), posixpath.basename(url))
    if not digest:
        raise SignatureRefused(f"{url}.DIGESTS has no SHA-512 digest of the archive")
    return digest


def _read_optional(url: str, patience: Patience, progress: Progress) -> bytes:
    """Return a small file, b"" where the mirror has none."""
    try:
        return _read(url, patience, progress)
    except DownloadFailed as error:
        if error.http_status == 404:
            return b""
        raise


def _read(url: str, patience: Patience, progress: Progress) -> bytes:
    return read_url(
        url, limit_bytes=_LIST_LIMIT, is_checked=True, patience=patience, progress=progress
    )


def _tell(signature: Signature, name: str, progress: Progress) -> None:
    progress(f"{name} is signed by {signature.signer} ({signature.fingerprint})", None)
