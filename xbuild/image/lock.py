"""Who may use an image at the same time: readers share it, a writer has it alone.

The lock is flock(2)'s, on the image file itself. A loop device shares the open file description
that it was made from, so that the lock lasts as long as the device does, whatever happens to the
process. Programs that do not lock are found by their loop devices.
"""

from __future__ import annotations

import errno
import os
import stat

from xbuild.errors import ImageBusy, ImageError
from xbuild.image.closing import OwnsDescriptor
from xbuild.record import HostPath
from xbuild.sandbox.disk_failure import busy_error
from xbuild.sandbox.filelock import lock_descriptor
from xbuild.sandbox.loop import loops_of
from xbuild.tree.resolve import target_error


class ImageLock(OwnsDescriptor):
    """An image opened and locked; owns ``fd``, which is writable if the lock is exclusive.

    Closing lets go, unless a loop device made from ``fd`` lives on.
    """

    def __init__(self, path: HostPath, fd: int) -> None:
        self.path = path
        self.fd = fd


def lock_image(path: HostPath, *, exclusive: bool) -> ImageLock:
    """Open an image, for writing if ``exclusive``, and lock it.

    Raises ImageBusy, which names who has it, ImageError for a file that may not be written,
    TargetError. A block device is opened O_EXCL for writing: one that is mounted is refused.
    """
    fd = _open(path, exclusive=exclusive)
    try:
        _lock(path, fd, exclusive=exclusive)
        refuse_foreign_loops(path, exclusive=exclusive)
    except BaseException:
        os.close(fd)
        raise
    return ImageLock(path, fd)


def _open(path: HostPath, *, exclusive: bool) -> int:
    flags = (os.O_RDWR if exclusive else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        if exclusive and stat.S_ISBLK(os.stat(path).st_mode):
            flags |= os.O_EXCL
        return os.open(path, flags)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ImageBusy(
                f"{path} is in use: it is mounted, or has an active holder", f"xbuild who {path}"
            ) from error
        if exclusive and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY):
            raise ImageError(
                f"Cannot open {path} for writing: {error.strerror}",
                "--read-only and --ephemeral leave it as it is",
            ) from error
        raise target_error(path, error) from error


def _lock(path: HostPath, fd: int, *, exclusive: bool) -> None:
    try:
        lock_descriptor(fd, exclusive=exclusive)
    except BlockingIOError as error:
        raise busy_error(path, is_exclusive=exclusive) from error
    except OSError as error:
        raise ImageError(
            f"Cannot lock {path}: {error.strerror}",
            "the file system that it is on has no flock(2): copy the image to one that has",
        ) from error


def refuse_foreign_loops(path: HostPath, *, exclusive: bool) -> None:
    """Raise ImageBusy where a loop device that takes no part in the locking shows the image.

    Two that only read do no harm.
    """
    loops = [loop for loop in loops_of(path) if exclusive or not _is_read_only(loop)]
    if loops:
        raise ImageBusy(
            f"{path} is attached to {', '.join(loops)} by another program",
            f"xbuild image release {path}; xbuild who {path} shows who uses it",
        )


def _is_read_only(loop: str) -> bool:
    with open(f"/sys/block/{os.path.basename(loop)}/ro", encoding="ascii") as file:
        return file.read().strip() == "1"
