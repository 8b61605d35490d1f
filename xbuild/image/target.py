"""Deciding whether a device may be written, and opening it so that nobody else uses it.

Each refusal is a function of what was read; ``--force`` overrides one of them only.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress

from xbuild.errors import DeviceFailed, DeviceRefused, ImageBusy, ImageError
from xbuild.image.closing import Closing
from xbuild.image.device import Device, read_attribute, read_device
from xbuild.image.file import ImageFile
from xbuild.image.lock import ImageLock, lock_image
from xbuild.image.occupation import Occupation
from xbuild.record import HostPath
from xbuild.sandbox.sysfs import text_of

_BLKRRPART = 0x125F  # linux/fs.h
_BLKFLSBUF = 0x1261
_GONE = (errno.ENODEV, errno.ENXIO, errno.EIO, errno.ENOMEDIUM)


def refuse_unfit(device: Device, occupation: Occupation, *, force: bool) -> None:
    """Raise DeviceRefused with the gravest reason not to write to a device."""
    path = device.path
    if occupation.is_system:
        raise DeviceRefused(f"{path} is the disk of the running system", "lsblk lists the others")
    if device.kind == "partition":
        whole = os.path.basename(os.path.dirname(device.node))
        raise DeviceRefused(
            f"{path} is a partition", f"an image goes on the whole disk: /dev/{whole}"
        )
    if occupation.mounts:
        raise DeviceRefused(f"{path} is in use: {'; '.join(occupation.mounts)}", "unmount it first")
    if occupation.swaps:
        raise DeviceRefused(f"{path} is in use: {'; '.join(occupation.swaps)}", "swapoff it first")
    if occupation.holders:
        raise DeviceRefused(
            f"{path} is in use: {'; '.join(occupation.holders)}",
            "deactivate it first: vgchange -an, mdadm --stop, cryptsetup close",
        )
    if device.size == 0:
        raise DeviceRefused(f"{path} has no medium, or is empty", "insert the card")
    if device.is_read_only:
        raise DeviceRefused(f"{path} is read-only", "has the card a write-protect switch?")
    if not device.is_removable and not force:
        raise DeviceRefused(
            f"{path} is not removable, so it is hardly a card", "--force if it is the right one"
        )


def refuse_too_small(device: Device, needed: int) -> None:
    """Raise DeviceRefused for a device that has fewer bytes than the image."""
    if device.size < needed:
        raise DeviceRefused(
            f"{device.path} is too small: it has {device.size} bytes, the image needs {needed}",
            "use a larger one, or xbuild image shrink",
        )


def refuse_same(image: ImageFile, device: Device) -> None:
    """Raise DeviceRefused where the image lies on, or is, what would be written."""
    source, target = os.fstat(image.fd), os.stat(device.path)
    same = (source.st_dev, source.st_ino) == (target.st_dev, target.st_ino)
    if same or (target.st_rdev and target.st_rdev in (source.st_rdev, source.st_dev)):
        raise DeviceRefused(
            f"{device.path} is the image itself, or holds it",
            "name the card or stick that is to be written: lsblk",
        )
    backing = text_of(f"{device.node}/loop/backing_file") if device.node else ""
    try:
        behind = os.stat(backing) if backing else None
    except OSError:
        return
    if behind and (behind.st_dev, behind.st_ino) == (source.st_dev, source.st_ino):
        raise DeviceRefused(
            f"{device.path} is the image itself: a loop device of it",
            "name the card or stick that is to be written: lsblk",
        )


class OpenTarget(Closing):
    """A device opened O_EXCL and locked. Owns its descriptor until close().

    ``is_direct`` tells that transfers go past the page cache, in multiples of ``unit`` bytes.
    """

    def __init__(self, device: Device) -> None:
        """Open and look again. Raises DeviceRefused, ImageBusy, ImageError."""
        self.device = device
        self._lock = _locked(device.path)
        self.fd = self._lock.fd
        try:
            self.require_same()
            self.is_direct = self._set_direct()
        except BaseException:
            self.close()
            raise
        self.unit = max(device.sector_size, 512) if self.is_direct else 1

    def close(self) -> None:
        """Close the descriptor, and with it the lock."""
        self._lock.close()

    def require_same(self) -> None:
        """Raise DeviceFailed unless this is still the device that was looked at."""
        device = self.device
        try:
            status, size = os.fstat(self.fd), os.lseek(self.fd, 0, os.SEEK_END)
        except OSError as error:
            raise DeviceFailed(f"{device.path} is gone: {error.strerror}") from error
        number = status.st_ino if device.kind == "file" else status.st_rdev
        if number != device.rdev:
            raise DeviceFailed(f"{device.path} is now another device than the one looked at")
        if size < device.size:
            raise DeviceFailed(f"{device.path} has become smaller: {device.size} -> {size} bytes")
        sequence = read_attribute(f"{device.node}/diskseq") if device.node else ""
        if device.sequence and sequence != str(device.sequence):
            raise DeviceFailed(f"{device.path} is gone, or its medium was changed")

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data``. Raises DeviceFailed."""
        written = 0
        while written < len(data):
            try:
                count = os.pwrite(self.fd, data[written:], offset + written)
            except OSError as error:
                if error.errno == errno.EINVAL and self.is_direct:
                    self.stop_direct()
                    continue
                raise self._failed("write to", offset + written, error) from error
            if count == 0:
                raise DeviceFailed(f"{self.device.path} ends at byte {offset + written}")
            written += count

    def read(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` from the medium itself. Raises DeviceFailed."""
        filled = 0
        while filled < len(buffer):
            try:
                count = os.preadv(self.fd, [buffer[filled:]], offset + filled)
            except OSError as error:
                if error.errno == errno.EINVAL and self.is_direct:
                    self.stop_direct()
                    continue
                raise self._failed("read back", offset + filled, error) from error
            if count == 0:
                raise DeviceFailed(f"{self.device.path} ends at byte {offset + filled}")
            filled += count

    def flush(self) -> None:
        """Let nothing be left in caches, neither the kernel's nor the device's."""
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            raise self._failed("write to", None, error) from error

    def forget_cache(self) -> None:
        """Make the next read come from the medium, where reads go through the page cache."""
        self.flush()
        if self.is_direct:
            return
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if self.device.kind != "file":
            try:
                fcntl.ioctl(self.fd, _BLKFLSBUF, 0)
            except PermissionError:
                return  # the advice above has to do

    def reread_table(self) -> None:
        """Let the kernel look for partitions, where it can; udev does so by itself."""
        if self.device.kind != "file":
            with suppress(OSError):
                fcntl.ioctl(self.fd, _BLKRRPART)

    def _set_direct(self) -> bool:
        flags = fcntl.fcntl(self.fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETFL, flags | os.O_DIRECT)
        except OSError:
            return False  # tmpfs and others have no such thing
        return True

    def stop_direct(self) -> None:
        """Go through the page cache from here on: for a tail that is no whole sector."""
        if self.is_direct:
            flags = fcntl.fcntl(self.fd, fcntl.F_GETFL)
            fcntl.fcntl(self.fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
            self.is_direct = False

    def _failed(self, what: str, offset: int | None, error: OSError) -> DeviceFailed:
        where = f" at byte {offset}" if offset is not None else ""
        gone = error.errno in _GONE and not _is_there(self.device)
        reason = "it is gone" if gone else error.strerror
        return DeviceFailed(f"Cannot {what} {self.device.path}{where}: {reason}")


def _is_there(device: Device) -> bool:
    try:
        found = read_device(device.path)
    except DeviceRefused:
        return False
    return (found.rdev, found.sequence) == (device.rdev, device.sequence) and found.size > 0


def _locked(path: HostPath) -> ImageLock:
    try:
        return lock_image(path, exclusive=True)
    except ImageBusy as error:
        raise DeviceRefused(
            f"{error.message}, perhaps where it cannot be seen from here",
            f"xbuild who {path}",
        ) from error
    except ImageError as error:
        raise DeviceRefused(error.message, "root may write to it") from error
