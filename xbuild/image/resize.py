"""Growing and shrinking an image: file, last partition and its file system together.

All work is done on a copy of what is in use, beside the image, which is then renamed over it.
Whenever this is interrupted, by SIGKILL or by a power cut, the image is either the old one, byte
for byte, or the new one. Where the file system shares blocks (btrfs, XFS) the copy costs nothing.
No root, no loop device and no mount is needed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable

from xbuild.errors import DamagedImage, ImageError
from xbuild.image.compressed import raw_name, unpack_command
from xbuild.image.ext_resize import repair_ext, resize_ext, smallest_ext, verify_ext
from xbuild.image.extents import Extent, copy_extents, data_extents, total_length
from xbuild.image.file import ImageFile, copy_status, open_no_link
from xbuild.image.filesystem import EXT, filesystem_in
from xbuild.image.lock import lock_image
from xbuild.image.repartition import (
    dump_script,
    edit_script,
    last_partition,
    resized,
    tail_length,
    write_table,
)
from xbuild.image.running import run_unhurried
from xbuild.image.table import Partition, Table, table_of
from xbuild.record import HostPath, Record
from xbuild.tree.stream import compression_of

GRAIN = 1 << 20  # partitions end at multiples of it, as sfdisk would have them
STEPS = ("copied", "checked", "resized", "assembled", "partitioned", "verified", "replaced")
_FICLONE = 0x40049409  # linux/fs.h
_UNSUPPORTED = "only ext2, ext3 and ext4 can be resized without mounting them"

AfterStep = Callable[[str], None]


class Resized(Record):
    """What was done: sizes in bytes of the image and of its last file system."""

    path: HostPath
    partition: int
    size_before: int
    size: int
    filesystem_before: int
    filesystem: int


class _Goal(Record):
    """The sizes to reach: of the file, and of the file system in it."""

    size: int
    filesystem: int


class _Subject(Record):
    """An image that can be resized. ``last`` is None where it is one file system."""

    path: HostPath
    size: int
    table: Table
    last: Partition | None
    script: str

    @property
    def span(self) -> Extent:
        """Return where the file system may be."""
        return Extent(self.last.offset, self.last.size) if self.last else Extent(0, self.size)


def grow_image(
    path: HostPath, *, size: int, is_relative: bool = False, after_step: AfterStep | None = None
) -> Resized:
    """Grow an image to ``size`` bytes, or by as many, and return what was done.

    ``after_step`` is called with each of STEPS when it is done. Raises ImageError, DamagedImage,
    ImageBusy, ImageToolMissing; the image is then as it was.
    """

    def choose(subject: _Subject, _work: HostPath) -> _Goal:
        wanted = subject.size + size if is_relative else size
        room = _filesystem_size(subject, wanted)
        if room <= subject.span.length:
            raise ImageError(
                f"Cannot grow {subject.path} to {wanted} bytes: it has {subject.size}",
                "give a larger size, or how much to add: +2G",
            )
        return _Goal(wanted, room)

    return _resize(path, "grow", choose, after_step)


def shrink_image(
    path: HostPath, *, size: int | None = None, after_step: AfterStep | None = None
) -> Resized:
    """Shrink an image to ``size`` bytes, or as far as its file system allows: see grow_image()."""

    def choose(subject: _Subject, work: HostPath) -> _Goal:
        with open(work, "rb") as file:
            smallest = smallest_ext(file.fileno(), label=subject.path)
        least = min(_image_size(subject, smallest), subject.size)
        if size is not None and size < least:
            raise ImageError(
                f"Cannot shrink {subject.path} to {size} bytes: its files need {least}",
                f"give {least} or more, or --minimum",
            )
        wanted = least if size is None else size
        if wanted > subject.size:
            raise ImageError(
                f"Cannot shrink {subject.path} to {wanted} bytes: it has fewer",
                "xbuild image grow makes it larger",
            )
        return _Goal(wanted, min(_filesystem_size(subject, wanted), subject.span.length))

    return _resize(path, "shrink", choose, after_step)


def _round_up(size: int) -> int:
    return -(-size // GRAIN) * GRAIN


def _image_size(subject: _Subject, filesystem: int) -> int:
    """Return the size of an image whose last file system has at least so many bytes."""
    tail = tail_length(subject.table)
    return _round_up(subject.span.offset + filesystem) + (_round_up(tail) if tail else 0)


def _filesystem_size(subject: _Subject, size: int) -> int:
    """Return how large the last file system can be in an image of ``size`` bytes."""
    end = size - tail_length(subject.table)
    grain = GRAIN if subject.last else 4096
    return max(end // grain * grain - subject.span.offset, 0)


def _resize(
    path: HostPath,
    verb: str,
    choose: Callable[[_Subject, HostPath], _Goal],
    after_step: AfterStep | None,
) -> Resized:
    path = HostPath(os.path.realpath(path))
    done = after_step or (lambda _step: None)
    with lock_image(path, exclusive=True), ImageFile(path) as image:
        subject = _examine(image, verb)
        work = HostPath(f"{os.path.dirname(path)}/.{os.path.basename(path)}.xbuild-resize")
        try:
            return _perform(image, subject, work, choose, done)
        except OSError as error:
            raise _io_error(verb, path, error) from error
        except EOFError as error:
            raise DamagedImage(f"{path} became shorter while it was read") from error
        finally:
            _remove(work)


def _perform(
    image: ImageFile,
    subject: _Subject,
    work: HostPath,
    choose: Callable[[_Subject, HostPath], _Goal],
    done: AfterStep,
) -> Resized:
    path = subject.path
    before = os.fstat(image.fd)
    _copy_out(image, subject.span, work)
    done("copied")
    with open(work, "r+b", opener=open_no_link) as file:
        repair_ext(file.fileno(), label=path)
    done("checked")
    goal = choose(subject, work)
    with open(work, "r+b", opener=open_no_link) as file:
        resize_ext(file.fileno(), goal.filesystem, label=path)
    done("resized")
    _put_in_place(work, subject.span.offset)
    _copy_head(image, work, subject.span.offset, goal.size)
    done("assembled")
    if subject.last is not None:
        wanted = resized(subject.table, subject.last, goal.filesystem)
        write_table(work, edit_script(subject.script, wanted), wanted, label=path)
    done("partitioned")
    with open(work, "rb", opener=open_no_link) as file:
        verify_ext(file.fileno(), subject.span.offset, label=path)
    _refuse_changed(image, before)
    done("verified")
    _replace(image, work)
    done("replaced")
    number = subject.last.number if subject.last else 0
    return Resized(path, number, subject.size, goal.size, subject.span.length, goal.filesystem)


def _examine(image: ImageFile, verb: str) -> _Subject:
    """Find what is to be resized. Raises ImageError where there is no such thing."""
    status = os.fstat(image.fd)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(
            f"Cannot {verb} {image.label}: it is no regular file",
            "copy a device to a file first, and flash that when it is done",
        )
    if status.st_nlink > 1:
        raise ImageError(
            f"Cannot {verb} {image.label}: it has {status.st_nlink} names, and would have one",
            "remove its other hard links, or copy it",
        )
    kind = compression_of(image.pread(8, 0))
    if kind is not None:
        raise ImageError(
            f"Cannot {verb} {image.label}: it is compressed ({kind})",
            f"unpack it: {unpack_command(image.path, kind, raw_name(image.path))}",
        )
    table = table_of(image)
    last = last_partition(table)
    if table.kind != "none" and last is None:
        raise ImageError(
            f"Cannot {verb} {image.label}: it has no partition",
            "xbuild inspect IMAGE says what it has",
        )
    offset, size = (last.offset, last.size) if last else (0, image.size)
    filesystem = filesystem_in(image, offset, size)
    held = filesystem.type if filesystem else "nothing known"
    if held not in EXT:
        where = f"its last partition ({last.number})" if last else "it"
        raise ImageError(
            f"Cannot {verb} {image.label}: {where} holds {held}, and {_UNSUPPORTED}",
            "only the last partition can change its size" if last else "",
        )
    script = dump_script(image, table) if last else ""
    return _Subject(image.path, image.size, table, last, script)


def _copy_out(image: ImageFile, span: Extent, work: HostPath) -> None:
    """Copy the file system to the beginning of a new file; what an earlier try left goes."""
    _remove(work)
    extents = list(data_extents(image.fd, span.offset, span.end))
    target = os.open(work, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if not _shares_blocks(image.fd, target):
            _require_room(work, total_length(extents))
        os.ftruncate(target, span.length)
        copy_extents(image.fd, target, extents, shift=-span.offset)
    finally:
        os.close(target)


def _shares_blocks(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    os.ftruncate(target, 0)
    return True


def _require_room(work: HostPath, needed: int) -> None:
    directory = os.path.dirname(work)
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if free < needed and found.f_blocks:  # ramfs and others keep no account
        raise ImageError(
            f"Cannot make a copy in {directory}: it needs {needed} bytes, and {free} are free",
            "make room; the image is only replaced once its copy is complete",
        )


def _put_in_place(work: HostPath, offset: int) -> None:
    """Move the content of a file ``offset`` bytes up.

    FALLOC_FL_INSERT_RANGE (ext4, XFS, f2fs) only changes the file's map; elsewhere a second copy.
    """
    if offset == 0:
        return
    arguments = ["--insert-range", "--offset", "0", "--length", str(offset)]
    with open(work, "r+b", opener=open_no_link) as file:
        place = f"/proc/self/fd/{file.fileno()}"
        purpose = "assemble the image"
        status, _ = run_unhurried(
            file.fileno(), "fallocate", [*arguments, place], purpose=purpose, label=work
        )
    if status == 0:
        return
    os.rename(work, f"{work}-2")
    with open(f"{work}-2", "rb", opener=open_no_link) as source, open(work, "xb") as target:
        size = os.fstat(source.fileno()).st_size
        extents = list(data_extents(source.fileno(), 0, size))
        copy_extents(source.fileno(), target.fileno(), extents, shift=offset)
    os.unlink(f"{work}-2")


def _copy_head(image: ImageFile, work: HostPath, length: int, size: int) -> None:
    """Copy what is before the file system, and give the file its final size."""
    with open(work, "r+b", opener=open_no_link) as target:
        copy_extents(image.fd, target.fileno(), data_extents(image.fd, 0, length))
        target.truncate(size)


def _refuse_changed(image: ImageFile, before: os.stat_result) -> None:
    after = os.fstat(image.fd)
    if (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size):
        raise ImageError(
            f"{image.label} was changed by another program meanwhile; it is left as it is",
            "find out who writes to it, then do this again",
        )


def _replace(image: ImageFile, work: HostPath) -> None:
    """Put the work in the image's place, durably, with its owner, mode and attributes."""
    status = os.fstat(image.fd)
    fd = open_no_link(work, os.O_RDWR)
    try:
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, status.st_uid, status.st_gid)
        copy_status(image.fd, fd)
        os.utime(fd)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(work, image.path)
    directory = os.open(os.path.dirname(image.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _remove(work: HostPath) -> None:
    for path in (work, f"{work}-2"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


def _io_error(verb: str, path: HostPath, error: OSError) -> ImageError:
    hint = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return ImageError(
        f"Cannot {verb} {path}: {error.strerror}; the image is as it was",
        hint or "a copy of it is made in its directory, which must be writable",
    )
