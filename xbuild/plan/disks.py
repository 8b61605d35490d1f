"""The steps that open a disk image, and the file systems in it; ``disk`` decides on them."""

from __future__ import annotations

from xbuild.record import HostPath, Record


class OpenImage(Record):
    """Open a disk image and lock it (flock(2)), for as long as anything can use it.

    It must still be as it was when this was planned: ``size`` in bytes, ``mtime_ns``. What a
    compressed ``image`` was unpacked to has no name: it is what ``descriptor`` of the launcher is.
    """

    image: HostPath
    is_exclusive: bool
    size: int
    mtime_ns: int
    descriptor: int | None = None


class AttachLoop(Record):
    """Show a range of the image as a loop device, which goes with its last user (autoclear).

    ``partition`` is 0 for an image that is one file system; ``offset`` and ``size`` in bytes.
    """

    partition: int
    offset: int
    size: int
    read_only: bool = False


class CheckFilesystem(Record):
    """Have a program check and repair a partition.

    The attached device follows ``argv``, or with ``offset`` (bytes) the image itself, as
    e2fsck(8) takes it. ``accepted`` are the exit statuses that leave it sound. With ``replay``, a
    type of file system, the kernel mounts it once before, for only that replays its journal.
    """

    partition: int
    argv: tuple[str, ...]
    offset: int | None = None
    accepted: tuple[int, ...] = (0,)
    replay: str = ""


class MountFilesystem(Record):
    """Mount an attached partition, visible nowhere yet: MountTree or Bind show ``volume``.

    What was written is flushed at the end of the run, before process 1 ends.
    """

    volume: str
    partition: int
    filesystem: str
    options: tuple[tuple[str, str | None], ...] = ()
    read_only: bool = False


class ServeFilesystem(Record):
    """Have a program serve a file system of the image through FUSE, in a directory of its own.

    The image and the mount point follow ``argv``. What it serves is visible nowhere yet: MountTree
    or Bind show ``volume``. ``offset`` is the partition's, in bytes. The program sees no file of
    the host's, and ends with the last mount of what it serves, or with whoever started it.
    """

    volume: str
    partition: int
    offset: int
    argv: tuple[str, ...]
    read_only: bool = False
