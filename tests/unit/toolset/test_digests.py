"""Digests by identity: read once, and again after any change."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from xbuild.toolset.digests import Digests

SECONDS_AGO = 10


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/xbuild/native/digests"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def _of(digests: Digests, path: Path) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return digests.of(fd)
    finally:
        os.close(fd)


def _settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock run on, as ctime cannot be set back."""
    later = time.time_ns() + SECONDS_AGO * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)


def test_digest_is_that_of_the_content(file: Path) -> None:
    assert _of(Digests("subject"), file) == hashlib.sha256(b"content").hexdigest()


def test_known_file_is_not_read_again(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _settle(monkeypatch)
    digests = Digests("subject")
    true = _of(digests, file)
    digests.keep()
    (kept,) = cache.iterdir()
    kept.write_text(kept.read_text().replace(true, "0" * 64))  # what a second reading would not say
    assert _of(Digests("subject"), file) == "0" * 64
    assert _of(Digests("another"), file) == true


def test_any_change_is_noticed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _settle(monkeypatch)
    digests = Digests("subject")
    _of(digests, file)
    digests.keep()
    status = file.stat()
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # all but the ctime as it was
    assert _of(Digests("subject"), file) == hashlib.sha256(b"CONTENT").hexdigest()


def test_file_changed_this_moment_is_not_remembered(file: Path, cache: Path) -> None:
    digests = Digests("subject")
    _of(digests, file)
    digests.keep()
    assert not cache.exists() or all("content" not in each.read_text() for each in cache.iterdir())
    assert Digests("subject")._known == {}


def test_spoiled_cache_is_as_none(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _settle(monkeypatch)
    digests = Digests("subject")
    true = _of(digests, file)
    digests.keep()
    (kept,) = cache.iterdir()
    whole = kept.read_text()
    for spoiled in ("", "nonsense\n", whole[:30], whole.replace("\t", " "), whole[:-70] + "\n"):
        kept.write_text(spoiled)
        assert _of(Digests("subject"), file) == true


def test_cache_that_cannot_be_written_is_done_without(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _settle(monkeypatch)
    (tmp_path / "cache").write_text("a file where a directory should be")
    digests = Digests("subject")
    assert _of(digests, file) == hashlib.sha256(b"content").hexdigest()
    digests.keep()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    assert _of(Digests("subject"), file) == hashlib.sha256(b"content").hexdigest()
