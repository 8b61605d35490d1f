"""What xbuild keeps below its cache directory: each thing with its kind, size, age and users.

A table says what is where; the modules that put things there say so in more detail. Only reading:
deleting is ``prune``'s.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os

from xbuild.record import HostPath, Record
from xbuild.sandbox.holders import find_holders
from xbuild.source.cache import size_of
from xbuild.source.downloads import names_by_digest


class Kind(Record):
    """Things of one kind: below the cache each match of ``patterns`` (glob(7)) is one.

    Whoever fills one of ``locks``, directories below the cache, uses all that is of the kind.
    ``is_leftover``: of no use to anybody once who made it is gone.
    """

    name: str
    what: str
    patterns: tuple[str, ...]
    locks: tuple[str, ...] = ()
    is_leftover: bool = False


KINDS = (
    Kind("downloads", "files of mirrors, by what is in them", ("downloads/sha256/*",)),
    Kind("partial", "downloads to go on with", ("downloads/partial/*[0-9a-f]",)),
    Kind("trees", "archives of trees, made from packages", ("debian/*.tar", "demo"), ("debian",)),
    Kind(
        "packages",
        "packages of distributions, as apt fetched them",
        ("debian/pool", "native/downloads"),
        ("debian", "native"),
    ),
    Kind("native", "sets of native tools (xbuild native list)", ("native/sets/*",), ("native",)),
    Kind(
        "interpreters",
        "versions of qemu, and copies that know native tools",
        ("qemu/*[0-9]*", "native/interpreters/*"),
        ("qemu",),
    ),
    Kind("ccache", "ccache's, for each CHOST", ("ccache/*",)),
    Kind(
        "portage",
        "distfiles, binary packages and ccache of --profile gentoo, for each CHOST",
        ("portage/distfiles", "portage/binpkgs/*", "portage/ccache/*"),
    ),
    Kind("facts", "what was learnt of programs", ("interpreters", "native/digests")),
    Kind(
        "unfinished",
        "what killed processes left",
        ("*/work-*", ".new-*", "*/.new-*", "*/*/.new-*"),
        ("debian", "native", "qemu"),
        is_leftover=True,
    ),
    Kind("other", "what xbuild has not put there: goes where it is named alone", ()),
)
"""In the order in which they are listed; a path is of the first kind that has it."""


OTHER = "other"


class Holding(Record):
    """One thing in the cache; ``used_at`` is when it was last used, in seconds since 1970.

    ``label`` says more than the path, or is its last part. ``users`` are processes, in words.
    """

    kind: str
    path: HostPath
    label: str
    size_bytes: int
    used_at: float
    users: tuple[str, ...] = ()


def find_holdings(cache: HostPath, kinds: tuple[str, ...] = ()) -> tuple[Holding, ...]:
    """Return what is in the cache, of some kinds or of all, the longest unused first."""
    names = names_by_digest(HostPath(f"{cache}/downloads"))
    found = []
    for kind in KINDS:
        if kinds and kind.name not in kinds:
            continue
        for path in _matches(cache, kind):
            with contextlib.suppress(FileNotFoundError):
                label = names.get(os.path.basename(path)) or os.path.relpath(path, cache)
                size, used_at = size_of(path), last_use(path)
                users = users_of(path) or fillers_of(kind, cache)
                found.append(Holding(kind.name, path, label, size, used_at, users))
    return tuple(sorted(found, key=lambda holding: holding.used_at))


def users_of(path: HostPath) -> tuple[str, ...]:
    """Return who uses a file or directory, in words; containers of the caller's are looked into."""
    holders = find_holders(HostPath(os.path.realpath(path))).found
    return tuple(f"{holder} {holder.how}" for holder in holders)


def fillers_of(kind: Kind, cache: HostPath) -> tuple[str, ...]:
    """Return the directories that are being filled, and so whatever is of this kind, in words."""
    busy = [f"{cache}/{name}" for name in kind.locks if _is_filled(f"{cache}/{name}")]
    return tuple(f"a process fills {directory}" for directory in busy)


def last_use(path: HostPath) -> float:
    """Return when a file, or the newest below a directory, was last written or, relatime, read."""
    moments = [0.0]
    for place, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                moments.append(_moment(f"{place}/{name}"))
    return max(*moments, _moment(path))


def _is_filled(directory: str) -> bool:
    """Tell whether a process holds the lock of a directory (``cache.locked``)."""
    try:
        fd = os.open(f"{directory}/lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _matches(cache: HostPath, kind: Kind) -> list[HostPath]:
    if kind.name == OTHER:
        known = {pattern.partition("/")[0] for each in KINDS for pattern in each.patterns}
        names = sorted(os.listdir(cache)) if os.path.isdir(cache) else []
        return [
            HostPath(f"{cache}/{n}") for n in names if n not in {*known, "lock"} and n[0] != "."
        ]
    found = []
    for pattern in kind.patterns:
        paths = glob.glob(pattern, root_dir=cache, include_hidden=".new-" in pattern)
        found += [HostPath(f"{cache}/{path}") for path in sorted(paths)]
    return found


def _moment(path: str) -> float:
    status = os.lstat(path)
    return max(status.st_mtime, 0.0 if os.path.isdir(path) else status.st_atime)
