"""What was learnt about interpreters by running them, kept from one start to the next.

Scope: ``$XDG_CACHE_HOME/xbuild/interpreters``, lines of tab-separated fields. A cache and nothing
more: what cannot be read, parsed or written is as if it were not there, and a file that changed
in any way is unknown again.
"""

from __future__ import annotations

import os
import stat

from xbuild.record import HostPath, Record

_HEADER = "# xbuild interpreters 1: path dev ino size mtime_ns ctime_ns arch version\n"
_FIELDS = 8
_SIZE_LIMIT = 65536  # bytes
_ROWS_LIMIT = 200


class Facts(Record):
    """``arch`` is the name of what the interpreter was seen to emulate, ``version`` qemu's."""

    arch: str
    version: str | None


class Identity(Record):
    """Which file it was, down to its last change."""

    path: HostPath
    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


def identify(path: HostPath) -> Identity | None:
    """Return the identity of the file at ``path``, symbolic links followed; None if it is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Identity(
        path,
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def cached_facts(path: HostPath) -> Facts | None:
    """Return what an earlier start learnt about this very file; changes nothing."""
    file = cache_place("interpreters")
    identity = identify(path)
    if file is None or identity is None:
        return None
    key = _key(identity)
    for row in _read_rows(file):
        fields = row.split("\t")
        if len(fields) == _FIELDS and fields[:-2] == key:
            return Facts(fields[-2], fields[-1] or None)
    return None


def remember_facts(identity: Identity, facts: Facts) -> None:
    """Keep what was learnt about the file of this identity; silently not, where that fails."""
    file = cache_place("interpreters")
    if file is None or any(c in identity.path for c in "\t\n\r"):
        return
    row = "\t".join((*_key(identity), facts.arch, facts.version or ""))
    others = [r for r in _read_rows(file) if r.split("\t", 1)[0] != identity.path]
    rows = [*others[-_ROWS_LIMIT + 1 :], row]
    try:
        _replace(file, _HEADER + "".join(f"{r}\n" for r in rows))
    except OSError:
        return


def _key(identity: Identity) -> list[str]:
    return [str(getattr(identity, field)) for field in identity.__match_args__]


def cache_place(name: str) -> HostPath | None:
    """Return a place in the cache, None without a home (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        home = os.environ.get("HOME", "")
        if not home.startswith("/"):
            return None
        base = f"{home}/.cache"
    return HostPath(f"{base}/xbuild/{name}")


def _read_rows(file: HostPath) -> list[str]:
    """Return the rows of a cache that this user wrote."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return []
    try:
        status = os.fstat(fd)
        # Under sudo with the user's HOME the cache is someone else's word.
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return []
        text = os.fsdecode(os.read(fd, _SIZE_LIMIT))
    except OSError:
        return []
    finally:
        os.close(fd)
    header, newline, rest = text.partition("\n")
    return rest.splitlines() if header + newline == _HEADER else []


def _replace(file: HostPath, text: str) -> None:
    directory = os.path.dirname(file)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if os.stat(directory).st_uid != os.geteuid():
        return
    new = f"{file}.{os.getpid()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as stream:
            stream.write(os.fsencode(text))
        os.rename(new, file)
    except OSError:
        os.unlink(new)
        raise
