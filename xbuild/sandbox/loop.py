"""Loop devices that vanish by themselves: loop(4), linux/loop.h. No policy.

Loaded only where a plan attaches an image.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from xbuild.record import Record
from xbuild.sandbox.sysfs import BLOCKS, backing_file_of, names_in

_LOOP_CONFIGURE = 0x4C0A
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_CLR_FD = 0x4C01
_LOOP_CTL_REMOVE = 0x4C81
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_LO_NAME_SIZE = 64
_INFO = "=5Q4I64s64s32s2Q"  # struct loop_info64
LOOP_CONTROL = "/dev/loop-control"
_TRIES = 64  # between finding a free device and taking it, another program may be faster
_TAKEN = (errno.EBUSY, errno.ENXIO)


class Loop(Record):
    """A configured device: ``fd`` keeps it attached until something else, a mount, does."""

    fd: int
    path: str


class LoopStatus(Record):
    """What a loop device shows: a range of the file with this device and inode number."""

    device: int
    inode: int
    offset: int
    size_limit: int
    is_read_only: bool


def attach_loop(backing: int, offset: int, size: int, *, read_only: bool, name: str = "") -> Loop:
    """Show ``size`` bytes from ``offset`` of an open file as a free loop device.

    The device holds the open file description of ``backing``, and with it any flock(2) lock,
    until it is detached: by the kernel, when nothing has it open any more (autoclear). Raises
    OSError.
    """
    control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            path = f"/dev/loop{_next_free(control)}"
            fd = _open_device(path, read_only=read_only)
            try:
                _configure(fd, backing, offset, size, read_only=read_only, name=name)
            except OSError as error:
                os.close(fd)
                if error.errno not in _TAKEN:
                    raise OSError(error.errno, error.strerror, path) from error
                continue
            return Loop(fd, path)
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), LOOP_CONTROL)


def _next_free(control: int) -> int:
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    except OSError as error:
        raise OSError(error.errno, error.strerror, LOOP_CONTROL) from error


def _open_device(path: str, *, read_only: bool) -> int:
    return os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)


def _configure(
    fd: int, backing: int, offset: int, size: int, *, read_only: bool, name: str
) -> None:
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if read_only else 0)
    shown = os.fsencode(name)[: _LO_NAME_SIZE - 1]
    info = struct.pack(_INFO, 0, 0, 0, offset, size, 0, 0, 0, flags, shown, b"", b"", 0, 0)
    fcntl.ioctl(fd, _LOOP_CONFIGURE, struct.pack("=2I", backing, 0) + info + bytes(64))


def read_status(path: str) -> LoopStatus | None:
    """Return what a loop device shows, None where it shows nothing. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(struct.calcsize(_INFO)))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    finally:
        os.close(fd)
    device, inode, _, offset, limit, _, _, _, flags, *_ = struct.unpack(_INFO, answer)
    return LoopStatus(device, inode, offset, limit, bool(flags & _LO_FLAGS_READ_ONLY))


def detach_loop(path: str) -> None:
    """Detach a loop device; one in use is detached when its last user goes. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _LOOP_CLR_FD)
    finally:
        os.close(fd)


def remove_loop(number: int) -> None:
    """Remove an unused device that was made by attaching to it. Raises OSError."""
    control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(control, _LOOP_CTL_REMOVE, number)
    finally:
        os.close(control)


def loops_of(path: str) -> tuple[str, ...]:
    """Return the loop devices that show a file or a block device, as far as sysfs tells.

    By name and, where the device may be opened, by identity. Raises OSError when ``path`` is gone.
    """
    wanted = os.stat(path)
    real = os.path.realpath(path)
    found = []
    for name in names_in(BLOCKS):
        backing = backing_file_of(name)
        if backing and (backing == real or _shows(f"/dev/{name}", wanted)):
            found.append(f"/dev/{name}")
    return tuple(found)


def _shows(device: str, wanted: os.stat_result) -> bool:
    try:
        status = read_status(device)
    except OSError:
        return False
    if status is None or stat.S_ISBLK(wanted.st_mode):
        return False
    return (status.device, status.inode) == (wanted.st_dev, wanted.st_ino)
