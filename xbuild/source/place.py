"""A target that appears whole or not at all: made in a directory beside it, then given its name.

Who makes it holds a lock on that directory. What an interrupted process left there is removed by
the next that makes the same target.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xbuild.errors import SourceError
from xbuild.record import HostPath
from xbuild.sandbox import _linux
from xbuild.sandbox.as_root import as_root_of
from xbuild.sandbox.filelock import lock_descriptor, lock_holders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.steps import IdMap

_RENAME_NOREPLACE = 1  # linux/fs.h
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SUFFIX = ".xbuild-create"


@contextmanager
def place_beside(target: HostPath, outer: IdMap | None) -> Iterator[HostPath]:
    """Lend an empty directory, of mode 0700, beside ``target``, and remove it in the end.

    ``outer`` are the ids of what is made there, as whose root it can be removed. Raises
    SourceError where ``target`` exists, is being made by another, or cannot be made there.
    """
    require_free(target)
    parent, name = os.path.split(target)
    place = HostPath(f"{parent}/.{name}{_SUFFIX}")
    try:
        with _locked(place, target):
            try:
                _empty(place, outer)
                yield place
            finally:
                with _ends_held_back():
                    _empty(place, outer)
                    os.rmdir(place)
    except OSError as error:
        if error.filename != place:
            raise
        raise _cannot_make(target, error.errno or 0) from error


@contextmanager
def _ends_held_back() -> Iterator[None]:
    """Let signals that end this process wait: clearing a tree away takes seconds."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def settle(made: HostPath, target: HostPath) -> None:
    """Give what was made beside it the name ``target``, durably. Raises SourceError."""
    with _opened(os.path.dirname(target)) as parent:
        _linux.syncfs(parent)
        try:
            _rename_new(made, target)
        except FileExistsError as error:
            raise already_there(target) from error
        os.fsync(parent)


def require_free(target: HostPath) -> None:
    """Raise SourceError where ``target`` exists, or the directory above does not let it be made."""
    if os.path.lexists(target):
        raise already_there(target)
    parent = os.path.dirname(target)
    if not os.path.isdir(parent):
        raise _cannot_make(target, errno.ENOENT)
    if not os.access(parent, os.W_OK | os.X_OK):
        is_read_only = os.statvfs(parent).f_flag & os.ST_RDONLY
        raise _cannot_make(target, errno.EROFS if is_read_only else errno.EACCES)


def _cannot_make(target: HostPath, number: int) -> SourceError:
    hint = f"it is made beside its place: is {os.path.dirname(target)} there, and writable?"
    if number == errno.ENAMETOOLONG:
        hint = f"choose a shorter name: {_SUFFIX} is added to it until it is made"
    return SourceError(f"Cannot make {target}: {os.strerror(number)}", hint)


def already_there(target: HostPath) -> SourceError:
    """Return the error for a target that exists."""
    hint = "remove it first, or name another"
    if os.path.ismount(target):
        hint = "it is a mount point: name a directory in it, which does not exist yet"
    return SourceError(f"{target} exists already", hint)


def _rename_new(made: HostPath, target: HostPath) -> None:
    rename = _linux.libc_function("renameat2", 5)
    here = _linux.AT_FDCWD
    result = rename(here, os.fsencode(made), here, os.fsencode(target), _RENAME_NOREPLACE)
    try:
        _linux.checked(result, target)
    except OSError as error:
        # A file system without it, such as NFS: nobody else is at it who asked for our lock.
        if error.errno != errno.EINVAL or os.path.lexists(target):
            raise
        os.rename(made, target)


@contextmanager
def _locked(place: HostPath, target: HostPath) -> Iterator[int]:
    with suppress(FileExistsError):
        os.mkdir(place, 0o700)
    with _opened(place) as fd:
        if os.fstat(fd).st_uid != os.geteuid():
            raise SourceError(
                f"Cannot make {target}: {place} is another user's, who could change what is made",
                "have it removed, or name a target elsewhere",
            )
        try:
            lock_descriptor(fd, exclusive=True)
        except BlockingIOError as error:
            holders = ", ".join(map(str, lock_holders(fd)))
            raise SourceError(
                f"{target} is being made by another process ({holders})", "wait for its end"
            ) from error
        if not os.path.exists(place):  # whose it was has finished meanwhile
            raise already_there(target)
        yield fd


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _empty(place: HostPath, outer: IdMap | None) -> None:
    names = os.listdir(place)
    if not names:
        return

    def remove() -> str:
        for name in names:
            path = os.path.join(place, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        return ""

    as_root_of(outer, remove)
