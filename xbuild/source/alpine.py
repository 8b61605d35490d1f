"""Alpine's minirootfs archives: the latest of a branch, as its release manager has signed it.

Of a mirror's BRANCH/releases/ARCH: ``latest-releases.yaml`` names the archive, its size and
digests, and is not signed; ``ARCHIVE.asc`` is a detached signature of the archive.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterator

from xbuild.binary.arch import Arch
from xbuild.errors import DownloadFailed, SignatureRefused, SourceError, UsageError
from xbuild.record import HostPath, Record
from xbuild.source.apt import Progress
from xbuild.source.download import Downloaded, Patience, Wanted, downloaded, read_url
from xbuild.source.http import with_scheme
from xbuild.source.openpgp import require_keyring, verify_file

MIRROR = "https://dl-cdn.alpinelinux.org/alpine"
FLAVOUR = "alpine-minirootfs"
_KEYRING_HINT = (
    "--keyring FILE names the key that signs releases, from alpinelinux.org/downloads;"
    " or --sha256 DIGEST says which archive it is"
)
_ARCHITECTURES = {
    "aarch64": "aarch64",
    "arm": "armv7",
    "i386": "x86",
    "loongarch64": "loongarch64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "x86_64": "x86_64",
}
_LIST_LIMIT = 1 << 20
_BRANCH = re.compile(r"v?(?P<number>\d+\.\d+)|edge|latest-stable")
_FILE = re.compile(rf"{FLAVOUR}-[\w.-]+\.tar\.gz")
# The mappings of the list are indented by two; what is deeper is text of several lines.
_FIELD = re.compile(r"^(?:- |  )(\w+): *(.*?) *$", re.M)


class Release(Record):
    """An archive of the list."""

    file: str
    size_bytes: int
    sha256: str
    sha512: str


def alpine_architecture(arch: Arch, name: str | None) -> str:
    """Return Alpine's name of an architecture that was called ``name``. Raises UsageError."""
    if name in ("armhf", "armv6l", "armel"):  # to Alpine, armhf is ARMv6
        return "armhf" if name == "armv6l" else "armv7"
    if arch.name not in _ARCHITECTURES:
        raise UsageError(f"Alpine has no name for {arch.common_name}", "name another with --arch")
    return _ARCHITECTURES[arch.name]


def branch_named(text: str) -> str:
    """Return a branch as mirrors call it: v3.20, edge. Raises UsageError."""
    found = _BRANCH.fullmatch(text)
    if not found:
        raise UsageError(f"No branch of Alpine is called {text!r}", "such as 3.20, latest-stable")
    return f"v{found['number']}" if found["number"] else text


@contextlib.contextmanager
def fetched_minirootfs(
    branch: str,
    architecture: str,
    mirror: str,
    keyring: HostPath | None,
    *,
    sha256: str,
    patience: Patience,
    progress: Progress,
) -> Iterator[Downloaded]:
    """Lend the latest archive of a branch, checked by its signature or by the ``sha256`` given.

    Raises SignatureRefused, WrongDigest, DownloadFailed, SourceError.
    """
    require_check(keyring, sha256)
    listed = list_of(branch, architecture, mirror)
    base = posixpath.dirname(listed)
    progress(f"reading {listed}", None)
    text = _read(listed, patience, progress).decode("utf-8", "replace")
    release = parse_releases(text, architecture)
    url = f"{base}/{release.file}"
    signature = b"" if keyring is None else _read(f"{url}.asc", patience, progress)
    wanted = Wanted(url, sha256 or release.sha256, release.sha512, release.size_bytes, True)
    with downloaded(wanted, patience=patience, progress=progress) as found:
        if keyring is not None:
            made = verify_file(found.path, signature, keyring, what=url)
            progress(f"{release.file} is signed by {made.signer} ({made.fingerprint})", None)
        yield found


def require_check(keyring: HostPath | None, sha256: str) -> None:
    """Raise SignatureRefused where an archive could not be checked."""
    if keyring is not None:
        require_keyring(keyring, _KEYRING_HINT)
    elif not sha256:
        raise SignatureRefused(
            "Cannot check Alpine's signature: no keyring was named", _KEYRING_HINT
        )


def list_of(branch: str, architecture: str, mirror: str) -> str:
    """Return the URL of the list of a branch's archives."""
    base = f"{with_scheme(mirror).rstrip('/')}/{branch}/releases/{architecture}"
    return f"{base}/latest-releases.yaml"


def parse_releases(text: str, architecture: str) -> Release:
    """Return the minirootfs of a list. Raises SourceError where it has none."""
    for entry in re.split(r"^-(?=\s)", text, flags=re.M):
        fields = {name: value.strip("'\"") for name, value in _FIELD.findall(entry)}
        file, size = fields.get("file", ""), fields.get("size", "")
        if fields.get("flavor") != FLAVOUR or fields.get("arch") != architecture:
            continue
        if _FILE.fullmatch(file):
            digests = (fields.get("sha256", ""), fields.get("sha512", ""))
            return Release(file, int(size) if size.isdigit() else 0, *digests)
    raise SourceError(
        f"The mirror's list of releases has no {FLAVOUR} for {architecture}",
        "another branch may: docs/trees.md; or another --mirror",
    )


def _read(url: str, patience: Patience, progress: Progress) -> bytes:
    try:
        return read_url(
            url, limit_bytes=_LIST_LIMIT, is_checked=True, patience=patience, progress=progress
        )
    except DownloadFailed as error:
        if error.http_status != 404 or not url.endswith(".asc"):
            raise
        raise SignatureRefused(
            f"{url.removesuffix('.asc')} cannot be checked: the mirror has no signature of it",
            "try another mirror, or say which archive it is: --sha256 DIGEST",
        ) from error
