"""Partitions as block devices: loop devices by offset and size, detached by the kernel itself."""

from __future__ import annotations

import os

from xbuild.errors import CannotAttach
from xbuild.image.closing import OwnsDescriptor
from xbuild.record import HostPath
from xbuild.sandbox.disk_failure import explain_attach
from xbuild.sandbox.loop import attach_loop


class LoopDevice(OwnsDescriptor):
    """An attached loop device; owns ``fd``, and is detached when that and all users are gone."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = HostPath(path)


def attach(path: HostPath, offset: int, size: int, *, read_only: bool) -> LoopDevice:
    """Attach ``size`` bytes of an image from ``offset``. Raises CannotAttach."""
    try:
        backing = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    except OSError as error:
        raise CannotAttach(
            f"Cannot open {path}: {error.strerror}",
            "look at the path and at who may read it: ls -l",
        ) from error
    try:
        return attach_descriptor(backing, path, offset, size, read_only=read_only)
    finally:
        os.close(backing)


def attach_descriptor(
    backing: int, path: HostPath, offset: int, size: int, *, read_only: bool
) -> LoopDevice:
    """Attach a range of an open image, whose lock the device then holds. Raises CannotAttach."""
    try:
        loop = attach_loop(backing, offset, size, read_only=read_only, name=path)
    except OSError as error:
        raise explain_attach(error.errno or 0, str(error.filename or ""), path) from error
    return LoopDevice(loop.fd, loop.path)
