"""Folding changes back into their tree, all or nothing.

A new tree is made beside the old one: what did not change is a hard link to the same file, and what
did is one to that of the layer, or a copy. Then the two change names, in one step of the kernel's
(RENAME_EXCHANGE in renameat2(2)), and the old one goes. Whatever is interrupted leaves the old tree
or the new one, and doing it again completes it. Off the start path.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat

from xbuild.errors import SetupFailed, TreeLocked
from xbuild.plan.layers import TREE, UPPER, WORK
from xbuild.record import HostPath
from xbuild.sandbox import _linux
from xbuild.sandbox.filelock import lock_descriptor
from xbuild.sandbox.layer import (
    MARKS,
    is_opaque,
    is_whiteout,
    opened,
    opened_if_directory,
)

_RENAME_EXCHANGE = 2  # linux/fs.h
_DONE = "upper.folded"  # in the directory that keeps changes: what was folded, to be removed
_CHUNK = 1 << 20


def tree_of(directory: HostPath) -> HostPath:
    """Return the tree whose changes a directory keeps. Raises SetupFailed."""
    try:
        return HostPath(os.readlink(f"{directory}/{TREE}"))
    except OSError as error:
        raise SetupFailed(
            f"{directory} keeps no changes of a tree: {error.strerror} at {TREE}",
            "name a directory that xbuild run --persist has made",
        ) from error


def commit(directory: HostPath) -> None:
    """Fold the changes in ``directory`` into their tree, and keep no more.

    Raises TreeLocked where a container or another commit uses either, OSError.
    """
    tree = tree_of(directory)
    with opened(directory) as changes, opened(tree) as old:
        _lock(changes.fd, directory)
        _lock(old.fd, tree)
        _remove(f"{directory}/{_DONE}")
        if os.path.exists(f"{directory}/{UPPER}"):
            _fold(tree, old.fd, directory)
            # One step again: half of the changes would not be them.
            os.rename(f"{directory}/{UPPER}", f"{directory}/{_DONE}")
        _remove(_beside(tree))
        _remove(f"{directory}/{_DONE}")
        _remove(f"{directory}/{WORK}")


def _beside(tree: HostPath) -> str:
    parent, name = os.path.split(tree)
    return f"{parent}/.{name}.xbuild-commit"


def _lock(fd: int, path: HostPath) -> None:
    try:
        lock_descriptor(fd, exclusive=True)
    except BlockingIOError as error:
        raise TreeLocked(
            f"{path} is in use: by a container, or by another commit",
            f"xbuild ps lists the containers; xbuild who {path}",
        ) from error


def _fold(tree: HostPath, old: int, directory: HostPath) -> None:
    beside = _beside(tree)
    _remove(beside)  # of a commit that was interrupted
    os.mkdir(beside, 0o700)
    try:
        with opened(beside) as new, opened(f"{directory}/{UPPER}") as upper:
            _Folding().merge(old, upper.fd, new.fd)
            _linux.syncfs(new.fd)
        _exchange(beside, tree)
    except OSError:
        _remove(beside)
        raise


def _exchange(beside: str, tree: HostPath) -> None:
    rename = _linux.libc_function("renameat2", 5)
    here = _linux.AT_FDCWD
    _linux.checked(
        rename(here, os.fsencode(beside), here, os.fsencode(tree), _RENAME_EXCHANGE), tree
    )
    with opened(os.path.dirname(tree)) as parent:
        os.fsync(parent.fd)


def _remove(path: str) -> None:
    if os.path.lexists(path):
        shutil.rmtree(path, onerror=_make_removable)


def _make_removable(function: object, path: str, failure: object) -> None:
    """Overlayfs's own directories have mode 0, which shuts out ordinary users."""
    del function, failure
    if os.path.isdir(path) and not os.path.islink(path):
        os.chmod(path, 0o700)
        shutil.rmtree(path)
    else:
        os.unlink(path)


class _Folding:
    """One new tree in the making; files with several names of a layer elsewhere keep them."""

    def __init__(self) -> None:
        self._copies: dict[tuple[int, int], str] = {}

    def merge(self, lower: int | None, upper: int, new: int) -> None:
        """Fill the directory ``new`` with what overlayfs shows of ``upper`` over ``lower``."""
        names = set(os.listdir(upper))
        if lower is not None:
            for name in os.listdir(lower):
                if name not in names:
                    self._keep(lower, name, new)
        for name in names:
            self._change(lower, upper, name, new)
        _dress(upper, new)

    def _keep(self, lower: int, name: str, new: int) -> None:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=lower).st_mode):
            os.link(name, name, src_dir_fd=lower, dst_dir_fd=new, follow_symlinks=False)
            return
        os.mkdir(name, 0o700, dir_fd=new)
        with opened(name, lower) as below, opened(name, new) as made:
            for each in os.listdir(below.fd):
                self._keep(below.fd, each, made.fd)
            _dress(below.fd, made.fd)

    def _change(self, lower: int | None, upper: int, name: str, new: int) -> None:
        status = os.lstat(name, dir_fd=upper)
        if is_whiteout(status):
            return
        if not stat.S_ISDIR(status.st_mode):
            self._take(upper, name, new, status)
            return
        os.mkdir(name, 0o700, dir_fd=new)
        with (
            opened(name, upper) as above,
            opened(name, new) as made,
            opened_if_directory(lower, name) as below,
        ):
            self.merge(None if is_opaque(above.fd) else below.fd, above.fd, made.fd)

    def _take(self, upper: int, name: str, new: int, status: os.stat_result) -> None:
        try:
            os.link(name, name, src_dir_fd=upper, dst_dir_fd=new, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(upper, name, new, status)
        if stat.S_ISREG(status.st_mode):
            _unmark(new, name)

    def _copy(self, upper: int, name: str, new: int, status: os.stat_result) -> None:
        key = status.st_dev, status.st_ino
        if key in self._copies:
            os.link(self._copies[key], name, dst_dir_fd=new, follow_symlinks=False)
            return
        if stat.S_ISREG(status.st_mode):
            _copy_file(upper, name, new)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=upper), name, dir_fd=new)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=new)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=new, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=new)
        times = status.st_atime_ns, status.st_mtime_ns
        os.utime(name, ns=times, dir_fd=new, follow_symlinks=False)
        if status.st_nlink > 1:
            self._copies[key] = f"{os.readlink(f'/proc/self/fd/{new}')}/{name}"


def _copy_file(upper: int, name: str, new: int) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=upper)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    writing = os.open(name, flags, 0o600, dir_fd=new)
    try:
        while os.sendfile(writing, reading, None, _CHUNK):
            continue
        _copy_attributes(reading, writing)
    finally:
        os.close(reading)
        os.close(writing)


def _dress(pattern: int, made: int) -> None:
    """Give a directory the attributes of another; its times last, since filling it changes them."""
    status = os.fstat(pattern)
    _copy_attributes(pattern, made)
    os.fchown(made, status.st_uid, status.st_gid)
    os.fchmod(made, stat.S_IMODE(status.st_mode))
    os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_attributes(pattern: int, made: int) -> None:
    for name in os.listxattr(pattern):
        if not name.startswith(MARKS):
            os.setxattr(made, name, os.getxattr(pattern, name))


def _unmark(parent: int, name: str) -> None:
    """Take away what overlayfs noted about where a file came from."""
    path = f"/proc/self/fd/{parent}/{name}"
    for attribute in os.listxattr(path, follow_symlinks=False):
        if attribute.startswith(MARKS):
            os.removexattr(path, attribute, follow_symlinks=False)
