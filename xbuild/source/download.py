"""Download files into the cache, whole and as they should be, or not at all.

What was interrupted goes on where it stopped, if the server still has the same; what fails for a
moment is tried again a bounded number of times; what has a digest is compared with it, and not
fetched again. How a request is made is ``http``'s, where things are kept ``downloads``'s.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import posixpath
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import TypeVar

from xbuild.errors import DownloadFailed, SourceError, WrongDigest
from xbuild.record import HostPath, Record
from xbuild.source.apt import Progress
from xbuild.source.cache import cache_directory
from xbuild.source.downloads import Downloads, Partial, Remembered, cannot_keep
from xbuild.source.http import Interrupted, explain_failure, open_url

_T = TypeVar("_T")

_READ_SIZE = 1 << 16
_SHOW_EVERY_S = 0.2
_LEAST_BYTES = 1024
"""What has to come in the time of a stall: less is as good as nothing."""


class Wanted(Record):
    """A file to download, and what it must be where that is known ("" and 0: it is not).

    ``is_checked`` says that the caller checks a signature of it before it is used.
    """

    url: str
    sha256: str = ""
    sha512: str = ""
    size_bytes: int = 0
    is_checked: bool = False

    @property
    def has_digest(self) -> bool:
        """Tell whether a content can be told to be the right one."""
        return bool(self.sha256 or self.sha512)

    @property
    def name(self) -> str:
        """Return the last part of the URL's path."""
        return file_name(self.url)


class Patience(Record):
    """How long a server may be silent, and the pauses before each further attempt."""

    stall_s: float = 30.0
    pauses_s: tuple[float, ...] = (1.0, 3.0, 9.0)


class Downloaded(Record):
    """A file of the cache, its content's digest; ``was_kept`` if no byte of it was fetched now."""

    path: HostPath
    url: str
    sha256: str
    size_bytes: int
    was_kept: bool

    @property
    def name(self) -> str:
        """Return the last part of the URL's path."""
        return file_name(self.url)


def file_name(url: str) -> str:
    """Return the last part of a URL's path, the whole where it has none."""
    return posixpath.basename(urllib.parse.urlsplit(url).path) or url


@contextlib.contextmanager
def downloaded(
    wanted: Wanted,
    *,
    cache: HostPath | None = None,
    patience: Patience | None = None,
    progress: Progress,
) -> Iterator[Downloaded]:
    """Lend a file of the cache with what ``wanted`` says; nobody deletes it meanwhile.

    ``cache`` is by default xbuild's own. Raises DownloadFailed, WrongDigest, and SourceError where
    the cache cannot be written.
    """
    directory = HostPath(os.path.join(cache or cache_directory(), "downloads"))
    errand = _Errand(Downloads(directory), wanted, patience or Patience(), progress)
    with errand.fetched() as found:
        yield found


def read_url(
    url: str,
    *,
    limit_bytes: int,
    is_checked: bool,
    patience: Patience | None = None,
    progress: Progress,
) -> bytes:
    """Return a small file, which is not kept. Raises DownloadFailed."""
    patience = patience or Patience()

    def attempt() -> bytes:
        with _response(url, {}, patience, is_checked=is_checked) as response:
            content = b"".join(_blocks(response, url, patience, limit_bytes + 1))
        if len(content) > limit_bytes:
            raise DownloadFailed(f"Cannot download {url}: it is larger than {limit_bytes} bytes")
        _require_whole(len(content), _announced_size(response))
        return content

    return _persist(attempt, lambda: 0, lambda: False, url, patience, progress)


class _Errand:
    """One file's way into the cache."""

    def __init__(
        self, store: Downloads, wanted: Wanted, patience: Patience, progress: Progress
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._patience = patience
        self._progress = progress

    @contextlib.contextmanager
    def fetched(self) -> Iterator[Downloaded]:
        """Lend the file from the cache, brought there if need be."""
        with self._lent(self._known_sha256(), was_kept=True) as found:
            if found is not None:
                self._progress(f"{self._wanted.name} is in the cache", None)
                yield found
                return
        sha256, was_kept = self._bring()
        with self._lent(sha256, was_kept=was_kept) as found:
            if found is None:
                raise SourceError(f"{self._wanted.name} was deleted from the cache", "try again")
            yield found

    @contextlib.contextmanager
    def _lent(self, sha256: str, *, was_kept: bool) -> Iterator[Downloaded | None]:
        if not sha256:
            yield None
            return
        with self._store.lent(sha256) as path:
            if path is None:
                yield None
            else:
                size = os.stat(path).st_size
                yield Downloaded(path, self._wanted.url, sha256, size, was_kept)

    def _known_sha256(self) -> str:
        if self._wanted.sha256:
            return self._wanted.sha256
        return self._store.find_by_sha512(self._wanted.sha512) if self._wanted.sha512 else ""

    def _bring(self) -> tuple[str, bool]:
        """Have the file in the cache; return its sha256, and whether it was there already."""
        url, began = self._wanted.url, time.time()
        with self._store.partial(url, self._progress) as partial:
            sha256 = self._known_sha256() or self._store.sha256_since(url, began)
            if sha256 and os.path.exists(self._store.path_of(sha256)):
                partial.forget()  # whoever had the lock before has brought it
                return sha256, True
            try:
                return self._bring_to(partial)
            except OSError as error:
                raise cannot_keep(os.path.dirname(partial.path), error) from error

    def _bring_to(self, partial: Partial) -> tuple[str, bool]:
        """Fill and publish the file. Raises OSError where it cannot be written."""
        wanted, was_resumed = self._wanted, partial.size > 0
        known = None if wanted.has_digest or was_resumed else self._store.recall(wanted.url)
        if self._fill(partial, known):
            assert known is not None
            partial.forget()
            return known.sha256, True
        sha256, sha512 = partial.digests()
        if was_resumed and not self._is_right(sha256, sha512):
            self._progress(f"{wanted.name} is damaged: fetching it from the start", None)
            partial.begin("", "")
            self._fill(partial, None)
            sha256, sha512 = partial.digests()
        if not self._is_right(sha256, sha512):
            partial.forget()
            raise self._wrong(sha256, sha512)
        version = (partial.etag, partial.last_modified)
        self._store.publish(partial, Remembered(wanted.url, sha256, sha512, partial.size, *version))
        return sha256, False

    def _is_right(self, sha256: str, sha512: str) -> bool:
        wanted = self._wanted
        return wanted.sha256 in ("", sha256) and wanted.sha512 in ("", sha512)

    def _wrong(self, sha256: str, sha512: str) -> WrongDigest:
        wanted = self._wanted
        kind, is_, should = (
            ("sha256", sha256, wanted.sha256)
            if wanted.sha256 not in ("", sha256)
            else ("sha512", sha512, wanted.sha512)
        )
        return WrongDigest(
            f"{wanted.url} is not what it should be: its {kind} is {is_}, not {should}",
            "a mirror out of step, or tampered with: try another; the file was deleted",
        )

    def _fill(self, partial: Partial, known: Remembered | None) -> bool:
        """Download until it is whole; True if the server says that ``known`` is still right."""
        return _persist(
            lambda: self._attempt(partial, known),
            lambda: partial.size,
            lambda: self._can_resume(partial),
            self._wanted.url,
            self._patience,
            self._progress,
        )

    def _attempt(self, partial: Partial, known: Remembered | None) -> bool:
        wanted, start = self._wanted, partial.size
        if start and start == wanted.size_bytes:
            return False  # an earlier process was stopped just before the end
        can_resume = self._can_resume(partial)
        headers = _range(start, partial.validator) if can_resume else _unless(known)
        with _response(
            wanted.url, headers, self._patience, is_checked=wanted.is_checked or wanted.has_digest
        ) as response:
            if response.status == 304 and known is not None:
                return True
            if response.status == 416:
                if _range_total(response) == start:
                    return False
                partial.begin("", "")
                raise Interrupted("the server has no rest of the file")
            if response.status == 206 and not can_resume:
                raise DownloadFailed(f"Cannot download {wanted.url}: only a part was sent")
            if response.status != 206 or _range_start(response) != start:
                partial.begin(*_version(response))
                if response.status == 206:
                    raise Interrupted("the server sent another part than was asked for")
            self._copy(response, partial)
        return False

    def _can_resume(self, partial: Partial) -> bool:
        return partial.size > 0 and bool(partial.validator or self._wanted.has_digest)

    def _copy(self, response: http.client.HTTPResponse, partial: Partial) -> None:
        """Add what comes to the file, and see that it is as much as was announced."""
        wanted = self._wanted
        length = _announced_size(response)
        total = partial.size + length if length is not None else None
        if wanted.size_bytes and total not in (None, wanted.size_bytes):
            raise self._wrong_size(f"the server announces {total}")
        self._require_room(partial, length or 0)
        shown = 0.0
        limit = wanted.size_bytes + 1 - partial.size if wanted.size_bytes else None
        for block in _blocks(response, wanted.url, self._patience, limit):
            partial.append(block)
            if time.monotonic() - shown >= _SHOW_EVERY_S:
                shown = time.monotonic()
                self._show(partial.size, total)
        _require_whole(partial.size, total)
        if wanted.size_bytes and partial.size > wanted.size_bytes:
            partial.forget()
            raise self._wrong_size("the server sends more")
        _require_whole(partial.size, wanted.size_bytes or None)
        self._show(partial.size, partial.size)

    def _wrong_size(self, what: str) -> DownloadFailed:
        return DownloadFailed(
            f"{self._wanted.url} should have {self._wanted.size_bytes} bytes, {what}",
            "a mirror out of step, or tampered with: try another",
        )

    def _require_room(self, partial: Partial, length: int) -> None:
        status = os.statvfs(partial.path)
        free = status.f_bavail * status.f_frsize
        if length > free:
            raise SourceError(
                f"Cannot keep {self._wanted.name} in {os.path.dirname(partial.path)}: it needs"
                f" {_megabytes(length)}, {_megabytes(free)} are free",
                "make room there (xbuild cache prune), or set XDG_CACHE_HOME to another place",
            )

    def _show(self, done: int, total: int | None) -> None:
        # The same text each time: where there is no terminal, each text is a line.
        text = f"downloading {self._wanted.name}"
        if total:
            self._progress(f"{text}, {_megabytes(total)}", done / total)
        else:
            self._progress(text, None)


def _persist(
    attempt: Callable[[], _T],
    gained: Callable[[], int],
    can_resume: Callable[[], bool],
    url: str,
    patience: Patience,
    progress: Progress,
) -> _T:
    """Call ``attempt`` until it succeeds; give up after a number of failures that gain nothing."""
    pauses, furthest = list(patience.pauses_s), gained()
    while True:
        try:
            return attempt()
        except Interrupted as interruption:
            if gained() > furthest:
                pauses, furthest = list(patience.pauses_s), gained()
            if not pauses:
                kept = "; what was downloaded is kept, and gone on with" if can_resume() else ""
                raise DownloadFailed(
                    f"Cannot download {url}: {interruption}"
                    f" (tried {len(patience.pauses_s) + 1} times)",
                    f"check the network, or try another mirror{kept}",
                ) from interruption
            pause = max(pauses.pop(0), interruption.wait_s)
            progress(f"{interruption}: trying again in {pause:.0f} s", None)
        time.sleep(pause)


@contextlib.contextmanager
def _response(
    url: str, headers: dict[str, str], patience: Patience, *, is_checked: bool
) -> Iterator[http.client.HTTPResponse]:
    response = open_url(url, headers, stall_s=patience.stall_s, is_checked=is_checked)
    with contextlib.closing(response):
        yield response


def _blocks(
    response: http.client.HTTPResponse, url: str, patience: Patience, limit: int | None
) -> Iterator[bytes]:
    """Yield what comes, up to ``limit`` bytes. Raises Interrupted where it stops coming."""
    since, came, left = time.monotonic(), 0, limit
    while left is None or left > 0:
        try:
            block = response.read1(_READ_SIZE if left is None else min(left, _READ_SIZE))
        except (OSError, http.client.HTTPException) as error:
            raise explain_failure(url, error, patience.stall_s) from error
        if not block:
            return
        yield block
        came += len(block)
        left = None if left is None else left - len(block)
        if time.monotonic() - since >= patience.stall_s:
            if came < _LEAST_BYTES:
                raise Interrupted(f"the server sent {came} bytes in {patience.stall_s:g} s")
            since, came = time.monotonic(), 0


def _require_whole(size: int, total: int | None) -> None:
    if total is not None and size < total:
        raise Interrupted(f"the connection ended after {size} of {total} bytes")


def _range(start: int, validator: str) -> dict[str, str]:
    headers = {"Range": f"bytes={start}-"}
    return headers | ({"If-Range": validator} if validator else {})


def _unless(known: Remembered | None) -> dict[str, str]:
    """Return the headers that ask for a file only where it is not the known one any more."""
    if known is None:
        return {}
    pairs = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: value for name, value in pairs.items() if value}


def _version(response: http.client.HTTPResponse) -> tuple[str, str]:
    return response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")


def _announced_size(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _range_start(response: http.client.HTTPResponse) -> int:
    """Return where a part begins, from ``bytes 100-199/200`` (RFC 9110, 14.4)."""
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else -1


def _range_total(response: http.client.HTTPResponse) -> int:
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else -1


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
