"""The cache of downloads: files by the digest of what is in them, and half ones to go on with.

``$XDG_CACHE_HOME/xbuild/downloads`` has ``sha256/DIGEST``, the files themselves; ``names/KEY``,
what was found at a URL (KEY is the URL's digest); ``partial/KEY``, what is being downloaded, locked
by who does it, with ``partial/KEY.json`` beside it. Who uses a file holds a shared lock on it
(flock(2)), so that nobody deletes it meanwhile. Not for fetching: see ``download``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from xbuild.errors import SourceError
from xbuild.record import HostPath, Record
from xbuild.source.apt import Progress
from xbuild.source.cache import refuse_anothers

BLOCK = 1 << 18


class Remembered(Record):
    """What a URL gave, and the server's own words for its version (RFC 9110, 8.8)."""

    url: str
    sha256: str
    sha512: str
    size_bytes: int
    etag: str = ""
    last_modified: str = ""


class Partial:
    """A download under way, locked: a file that grows, and which version of the URL it is of."""

    def __init__(self, fd: int, path: str, url: str) -> None:
        self._fd = fd
        self.path = path
        self._url = url
        self.etag, self.last_modified = self._read_version()

    @property
    def size(self) -> int:
        """Return how many bytes are there."""
        return os.fstat(self._fd).st_size

    @property
    def validator(self) -> str:
        """Return what tells this version from others: a strong ETag, or a date; "" for none."""
        return self.etag if self.etag.startswith('"') else self.last_modified

    def begin(self, etag: str, last_modified: str) -> None:
        """Start anew, with a version of these marks."""
        os.ftruncate(self._fd, 0)
        self.etag, self.last_modified = etag, last_modified
        write_json(
            f"{self.path}.json",
            {"url": self._url, "etag": etag, "last_modified": last_modified},
        )

    def append(self, data: bytes) -> None:
        """Add to the end. Raises OSError."""
        view = memoryview(data)
        while view:
            view = view[os.pwrite(self._fd, view, self.size) :]

    def digests(self) -> tuple[str, str]:
        """Return the sha256 and the sha512 of what is there."""
        sha256, sha512 = hash_descriptor(self._fd, "sha256", "sha512")
        return sha256, sha512

    def forget(self) -> None:
        """Delete it."""
        for path in (f"{self.path}.json", self.path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _read_version(self) -> tuple[str, str]:
        kept = read_json(f"{self.path}.json")
        if kept.get("url") != self._url:
            return "", ""
        return str(kept.get("etag", "")), str(kept.get("last_modified", ""))


class Downloads:
    """The cache at ``directory``; what in it is not this user's or root's does not count."""

    def __init__(self, directory: HostPath) -> None:
        self._directory = directory
        try:
            for name in ("sha256", "names", "partial"):
                os.makedirs(f"{directory}/{name}", exist_ok=True)
            refuse_anothers(directory)
        except OSError as error:
            raise cannot_keep(directory, error) from error

    def recall(self, url: str) -> Remembered | None:
        """Return what is known of a URL, if its content is still here."""
        found = _remembered(read_json(self._name_of(url)))
        if found is None or found.url != url or not os.path.exists(self.path_of(found.sha256)):
            return None
        return found

    def sha256_since(self, url: str, time_s: float) -> str:
        """Return the content of a URL that was brought after a moment, "" where none was."""
        found = self.recall(url)
        try:
            return found.sha256 if found and os.stat(self._name_of(url)).st_mtime > time_s else ""
        except FileNotFoundError:
            return ""

    def find_by_sha512(self, sha512: str) -> str:
        """Return the sha256 of the content with a sha512, "" where there is none."""
        for name in os.listdir(f"{self._directory}/names"):
            found = _remembered(read_json(f"{self._directory}/names/{name}"))
            if found is not None and found.sha512 == sha512:
                return found.sha256
        return ""

    def path_of(self, sha256: str) -> HostPath:
        """Return where the content with a digest is, or would be."""
        return HostPath(f"{self._directory}/sha256/{sha256}")

    @contextlib.contextmanager
    def lent(self, sha256: str) -> Iterator[HostPath | None]:
        """Lend a file with this content, held against deletion; None where there is none.

        The content is compared with its name again, and a damaged file is deleted.
        """
        path = self.path_of(sha256)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            yield None
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            status = os.fstat(fd)
            is_ours = status.st_nlink == 1 and status.st_uid in (0, os.geteuid())
            if is_ours and hash_descriptor(fd, "sha256") == (sha256,):
                os.utime(fd)  # the time of its last use, for pruning
                yield path
                return
            if is_ours:
                os.unlink(path)
        finally:
            os.close(fd)
        yield None

    @contextlib.contextmanager
    def partial(self, url: str, progress: Progress) -> Iterator[Partial]:
        """Lend the file that ``url`` is downloaded to, to one process at a time."""
        path = f"{self._directory}/partial/{_key(url)}"
        try:
            fd = _open_locked(path, progress)
        except OSError as error:
            raise cannot_keep(self._directory, error) from error
        partial = Partial(fd, path, url)
        try:
            yield partial
        finally:
            if not partial.size and os.fstat(fd).st_nlink:  # nothing to go on with
                partial.forget()
            os.close(fd)

    def publish(self, partial: Partial, found: Remembered) -> None:
        """Give what was downloaded the name of its content. Raises OSError."""
        os.rename(partial.path, self.path_of(found.sha256))
        partial.forget()
        self.remember(found)

    def remember(self, found: Remembered) -> None:
        """Keep what a URL gave."""
        fields: dict[str, object] = {n: getattr(found, n) for n in found.__match_args__}
        write_json(self._name_of(found.url), fields)

    def _name_of(self, url: str) -> str:
        return f"{self._directory}/names/{_key(url)}"


def names_by_digest(directory: HostPath) -> dict[str, str]:
    """Return the URLs of what is in a cache, by sha256; partial ones by the key of their files."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(f"{directory}/names"):
            known = _remembered(read_json(f"{directory}/names/{name}"))
            if known is not None:
                found[known.sha256] = known.url
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(f"{directory}/partial"):
            key, is_json, _ = name.partition(".json")
            if is_json:
                found[key] = str(read_json(f"{directory}/partial/{name}").get("url", key))
    return found


def cannot_keep(directory: str, error: OSError) -> SourceError:
    """Return the failure to write to the cache."""
    return SourceError(
        f"Cannot keep downloads in {directory}: {error.strerror}",
        "make room there (xbuild cache prune), or set XDG_CACHE_HOME to another place",
    )


def hash_descriptor(fd: int, *kinds: str) -> tuple[str, ...]:
    """Return digests of a whole file, one for each kind that hashlib knows."""
    hashes, offset = [hashlib.new(kind) for kind in kinds], 0
    while block := os.pread(fd, BLOCK, offset):
        for digest in hashes:
            digest.update(block)
        offset += len(block)
    return tuple(digest.hexdigest() for digest in hashes)


def read_json(path: str) -> dict[str, Any]:  # Any: as JSON has it
    """Return an object of a cache, empty where there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: str, fields: dict[str, object]) -> None:
    """Replace a file of a cache. Raises OSError."""
    new = f"{path}.{os.getpid()}"
    try:
        with open(new, "w", encoding="utf-8") as file:
            json.dump(fields, file)
        os.rename(new, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise


def _open_locked(path: str, progress: Progress) -> int:
    """Open and lock a file, made if missing; again if whoever had it has renamed or deleted it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("waiting for another process that downloads the same", None)
                fcntl.flock(fd, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(path)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _remembered(fields: dict[str, Any]) -> Remembered | None:  # Any: as JSON has it
    try:
        found = Remembered(**fields)
    except TypeError:
        return None
    texts = (found.url, found.sha256, found.sha512, found.etag, found.last_modified)
    if not all(isinstance(text, str) for text in texts) or not isinstance(found.size_bytes, int):
        return None
    return found if found.sha256.isalnum() else None


def _key(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()
