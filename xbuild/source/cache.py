"""A directory of things fetched: made by one process at a time, published whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator

from xbuild.errors import SourceError
from xbuild.record import HostPath
from xbuild.source.apt import Progress


def cache_directory() -> HostPath:
    """Return xbuild's cache: ``$XDG_CACHE_HOME/xbuild``, by default ``~/.cache/xbuild``."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return HostPath(os.path.join(base, "xbuild"))


@contextlib.contextmanager
def locked(directory: HostPath, progress: Progress) -> Iterator[None]:
    """Hold ``directory`` (made if missing) against other processes; wait for who has it.

    The lock goes with the process, so a killed one leaves none behind (flock(2)). Raises
    SourceError where somebody else could change what is there.
    """
    os.makedirs(directory, exist_ok=True)
    refuse_anothers(directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(os.path.join(directory, "lock"), flags, 0o644), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process that fills {directory}", None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def refuse_anothers(directory: HostPath) -> None:
    """Raise SourceError where a directory of the cache, or the cache, is another user's.

    As under sudo with a user's HOME, who could have laid links there to what is root's.
    """
    cache = cache_directory()
    for place in {directory, cache} if directory.startswith(f"{cache}/") else {directory}:
        for status in (os.lstat(place), os.stat(place)):
            if status.st_uid not in (0, os.geteuid()):
                raise SourceError(
                    f"Cannot use the cache {place}: it is another user's, who could change it",
                    "sudo -H, or set XDG_CACHE_HOME",
                )


@contextlib.contextmanager
def work_directory(directory: HostPath) -> Iterator[HostPath]:
    """Lend a scratch directory inside ``directory``, which the caller has locked.

    What an earlier, killed process left of its own is removed first.
    """
    for name in os.listdir(directory):
        if name.startswith("work-"):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
    work = tempfile.mkdtemp(prefix="work-", dir=directory)
    try:
        yield HostPath(work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def size_of(path: HostPath) -> int:
    """Return the bytes of a file, or of the regular files below a directory."""
    if not os.path.isdir(path):
        return os.lstat(path).st_size
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
