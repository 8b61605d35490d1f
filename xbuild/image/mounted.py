"""The tree of a file system that no program reads from outside, mounted read-only for a moment.

A mount that is attached nowhere (fsmount(2)), of a read-only loop device: no path of the host
leads there, in no mount namespace, and the kernel takes both away when the last descriptor is
closed, however the process ends. Needs root.
"""

from __future__ import annotations

import os

from xbuild.errors import DamagedImage, UnsupportedImage
from xbuild.image.attach import LoopDevice, attach_descriptor
from xbuild.image.file import ImageFile
from xbuild.record import HostPath
from xbuild.sandbox import _linux
from xbuild.tree.resolve import DirectoryReader

# Nothing is replayed: the loop device refuses every write. A copy may be mounted elsewhere.
_FLAGS = {"xfs": ("norecovery", "nouuid"), "ext3": ("noload",), "ext4": ("noload",)}
_CHECKS = {"btrfs": "btrfs check", "xfs": "xfs_repair -n"}
_UNREPAIRED = ("btrfs", "erofs", "squashfs")
_STRINGS = {"btrfs": (("rescue", "nologreplay"),)}


class MountedReader(DirectoryReader):
    """The tree of a mounted file system, in messages ``label``."""

    def __init__(self, image: ImageFile, offset: int, size: int, filesystem: str, label: str):
        """Attach and mount. Raises CannotAttach, DamagedImage, UnsupportedImage."""
        with attach_descriptor(image.fd, image.path, offset, size, read_only=True) as loop:
            mount = _mount(loop, filesystem, label)
        try:
            super().__init__(HostPath(f"/proc/self/fd/{mount}"))
        finally:
            os.close(mount)
        self.label = label


def _mount(loop: LoopDevice, filesystem: str, label: str) -> int:
    """Return the descriptor of a detached read-only mount, which the caller closes."""
    try:
        context = _linux.fsopen(filesystem)
    except OSError as error:
        raise UnsupportedImage(
            f"this kernel does not know {filesystem} ({error.strerror})",
            f"modprobe {filesystem}",
        ) from error
    try:
        _linux.fsconfig_string(context, "source", loop.path)
        for key in ("ro", *_FLAGS.get(filesystem, ())):
            _linux.fsconfig_flag(context, key)
        for key, value in _STRINGS.get(filesystem, ()):
            _linux.fsconfig_string(context, key, value)
        _linux.fsconfig_create(context, label=label)
        attributes = (
            _linux.MOUNT_ATTR_RDONLY
            | _linux.MOUNT_ATTR_NOSUID
            | _linux.MOUNT_ATTR_NODEV
            | _linux.MOUNT_ATTR_NOEXEC
        )
        return _linux.fsmount(context, attributes, label=label)
    except OSError as error:
        check = _CHECKS.get(filesystem, f"fsck.{filesystem}")
        raise DamagedImage(
            f"the kernel cannot mount its {filesystem}: {error.strerror}",
            f"the kernel's log says why; {check} may say more"
            + ("" if filesystem in _UNREPAIRED else ", and xbuild run --fsck repair it"),
        ) from error
    finally:
        os.close(context)
