"""The layer of changes that overlayfs wrote: what is in it beside the tree below it, by descriptor.

overlayfs marks what was removed by a character device 0:0, and a directory that hides the one below
by an extended attribute (Documentation/filesystems/overlayfs.rst). Off the start path.
"""

from __future__ import annotations

import os
import stat

from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    Kind = Literal["added", "changed", "deleted"]

MARKS = ("trusted.overlay.", "user.overlay.")  # by root, and in a user namespace
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Change(Record):
    """A path of the tree that is no longer as it was."""

    kind: Kind
    path: str


def list_changes(lower: str, upper: str) -> Iterator[Change]:
    """Yield what ``upper`` changes of ``lower``, in the order of the names. Raises OSError.

    Without an ``upper`` there are no changes.
    """
    if not os.path.lexists(upper):
        return
    with opened(lower) as below, opened(upper) as above:
        yield from _changes(below.fd, above.fd, "")


def _changes(lower: int | None, upper: int, path: str) -> Iterator[Change]:
    for name in sorted(os.listdir(upper)):
        place = f"{path}/{name}"
        now, before = status_of(upper, name), status_of(lower, name)
        assert now is not None
        if is_whiteout(now):
            if before is not None:
                yield Change("deleted", place)
            continue
        if before is None:
            yield Change("added", place)
        elif _differs(lower, upper, name, before, now):
            yield Change("changed", place)
        if stat.S_ISDIR(now.st_mode):
            with opened(name, upper) as above, opened_if_directory(lower, name) as below:
                yield from _changes(below.fd, above.fd, place)
                if below.fd is not None and is_opaque(above.fd):
                    gone = set(os.listdir(below.fd)) - set(os.listdir(above.fd))
                    yield from (Change("deleted", f"{place}/{each}") for each in sorted(gone))


def _differs(
    lower: int | None, upper: int, name: str, before: os.stat_result, now: os.stat_result
) -> bool:
    """Tell whether there is a difference; that of a directory's time is none."""
    if (before.st_mode, before.st_uid, before.st_gid) != (now.st_mode, now.st_uid, now.st_gid):
        return True
    if stat.S_ISDIR(now.st_mode):
        return False
    if stat.S_ISLNK(now.st_mode):
        return os.readlink(name, dir_fd=lower) != os.readlink(name, dir_fd=upper)
    facts = [(s.st_size, s.st_mtime_ns, s.st_rdev) for s in (before, now)]
    return facts[0] != facts[1]


class opened:  # noqa: N801 - reads as a function in a with statement
    """A directory, open while the block runs; ``fd`` is None where there is none."""

    def __init__(self, path: str, parent: int | None = None) -> None:
        self.fd: int = os.open(path, _DIRECTORY, dir_fd=parent)

    def __enter__(self) -> opened:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self.fd)


class _NoDirectory:
    fd = None

    def __enter__(self) -> _NoDirectory:
        return self

    def __exit__(self, *_exception: object) -> None:
        return


def opened_if_directory(parent: int | None, name: str) -> opened | _NoDirectory:
    """Open a directory, or nothing where there is something else or nothing."""
    status = status_of(parent, name)
    if parent is None or status is None or not stat.S_ISDIR(status.st_mode):
        return _NoDirectory()
    return opened(name, parent)


def status_of(parent: int | None, name: str) -> os.stat_result | None:
    """Return lstat(2) of a name, or None where it is not."""
    if parent is None:
        return None
    try:
        return os.lstat(name, dir_fd=parent)
    except FileNotFoundError:
        return None


def is_whiteout(status: os.stat_result) -> bool:
    """Tell whether it says that something was removed."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: int) -> bool:
    """Tell whether a directory hides the one below, rather than being merged with it."""
    names = os.listxattr(directory)
    return any(
        f"{mark}opaque" in names and os.getxattr(directory, f"{mark}opaque") == b"y"
        for mark in MARKS
    )
