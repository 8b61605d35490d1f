"""Digests of files, kept from one start to the next by the files' identity.

Scope: ``$XDG_CACHE_HOME/xbuild/native/digests/SUBJECT``, one file of tab-separated lines for each
tree and each set. A cache and nothing more: what cannot be read, parsed or written is as if it
were not there, and a file that changed in any way is read again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time

from xbuild.record import HostPath
from xbuild.toolset.manifest import native_directory

_HEADER = "# xbuild digests 1: dev ino size mtime_ns ctime_ns sha256\n"
_SIZE_LIMIT = 16 << 20  # bytes
_CHUNK_BYTES = 1 << 20
# A file that changed this moment may change again without another ctime: it is read once more.
_SETTLED_NS = 2_000_000_000

Key = tuple[int, int, int, int, int]


def key_of(status: os.stat_result) -> Key:
    """Return what a file is known by, down to its last change."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


class Digests:
    """What is known of the files of one ``subject``, the path of a tree or of a set."""

    def __init__(self, subject: str) -> None:
        name = hashlib.sha256(os.fsencode(subject)).hexdigest()[:32]
        directory = native_directory()
        self._file = None if directory is None else HostPath(f"{directory}/digests/{name}")
        self._known = {} if self._file is None else _read(self._file)
        self._met: dict[Key, str] = {}

    def of(self, fd: int) -> str:
        """Return the SHA-256 of an open regular file, reading it if it is not known.

        Raises OSError.
        """
        key = key_of(os.fstat(fd))
        digest = self._known.get(key) or _digest(fd)
        self._met[key] = digest
        return digest

    def keep(self) -> None:
        """Write what was asked for since, and nothing older; silently not, where that fails."""
        now = time.time_ns()
        settled = {key: d for key, d in self._met.items() if key[4] + _SETTLED_NS < now}
        if self._file is None or settled == self._known:
            return
        rows = ("\t".join((*map(str, key), digest)) for key, digest in settled.items())
        try:
            _replace(self._file, _HEADER + "".join(f"{row}\n" for row in rows))
        except OSError:
            return


def _digest(fd: int) -> str:
    digest = hashlib.sha256()
    offset = 0
    while chunk := os.pread(fd, _CHUNK_BYTES, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


def _read(file: HostPath) -> dict[Key, str]:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return {}
    with open(fd, "rb") as stream:
        status = os.fstat(fd)
        # Under sudo with the user's HOME the cache is someone else's word.
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return {}
        text = stream.read(_SIZE_LIMIT).decode("ascii", "replace")
    header, newline, rest = text.partition("\n")
    if header + newline != _HEADER:
        return {}
    return dict(filter(None, map(_parsed, rest.splitlines())))


def _parsed(row: str) -> tuple[Key, str] | None:
    fields = row.split("\t")
    if len(fields) != 6 or not all(field.isdigit() for field in fields[:5]):
        return None
    dev, ino, size, mtime_ns, ctime_ns = map(int, fields[:5])
    return (dev, ino, size, mtime_ns, ctime_ns), fields[5]


def _replace(file: HostPath, text: str) -> None:
    directory = os.path.dirname(file)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if os.stat(directory).st_uid != os.geteuid():
        return
    new = f"{file}.{os.getpid()}"
    try:
        with open(new, "x", encoding="ascii") as stream:
            stream.write(text)
        os.replace(new, file)
    except OSError:
        if os.path.exists(new):
            os.unlink(new)
        raise
