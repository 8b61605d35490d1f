"""What a child that assembles a container has in hand, and what it makes in the view but mounts.

Targets are opened below the view by openat2(2) without following any symbolic link, so that a
hostile tree can neither lead a mount outside nor swap a path after it was planned.
"""

from __future__ import annotations

import os
import stat

from xbuild.sandbox import _linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xbuild.plan import steps
    from xbuild.plan.steps import IdMap, Owner
    from xbuild.record import GuestPath
    from xbuild.sandbox.disks import AttachedDisk
    from xbuild.sandbox.guest_init import GuestInit

_BELOW = _linux.RESOLVE_IN_ROOT | _linux.RESOLVE_NO_SYMLINKS | _linux.RESOLVE_NO_MAGICLINKS


class Stage:
    """The state of one assembly, alive only in the children that ``apply`` forks."""

    def __init__(self, user_namespaces: dict[IdMap, int], disk: AttachedDisk | None = None) -> None:
        self.view = -1  # the root of the container's view, once MountTree made one
        self.layers = 0  # how many mounts of the view lie over the host's root, one on the other
        self.has_own_mounts = False  # whether this process left the host's mount namespace
        self.binfmt = -1  # the private instance, which lives while this is open
        self.user_namespaces = user_namespaces  # descriptors, for idmapped mounts
        self.disk = disk  # the image, where the tree is in one
        self.copies = (-1, -1)  # from which is copied in, and to which out
        self.at_end: list[Callable[[], None]] = []  # what process 1 does after the command
        self.network = -1  # on which the launcher is asked for a network
        self.kept: set[int] = set()  # descriptors, such as locks, that process 1 holds to its end
        self.limits = -1  # /proc/sys/user, once kept
        self.group = ""  # that of this run, where the guest has one of its own in it
        self.way_back = -1  # to xbuild's own in it
        self.guest_init: GuestInit | None = None  # where the command is a process 1

    def keep_limits(self) -> None:
        """Hold on to the host's view of /proc/sys/user: the container's own will be read-only."""
        self.limits = os.open("/proc/sys/user", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def look_from_here(self) -> None:
        """Take the process's own root as the view: after pivot_root, in a new mount namespace."""
        os.close(self.view)
        self.view = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_target(self, path: GuestPath) -> int:
        """Return an O_PATH descriptor of an existing place in the view."""
        return self._open(path, os.O_PATH)

    def open_parent(self, path: GuestPath) -> tuple[int, str]:
        """Return an O_PATH descriptor of the directory that holds ``path``, and its last name."""
        directory, _, name = path.rpartition("/")
        return self._open(directory, os.O_PATH | os.O_DIRECTORY), name

    def open_directory(self, path: GuestPath) -> int:
        """Return a readable descriptor of a directory in the view."""
        return self._open(path, os.O_RDONLY | os.O_DIRECTORY)

    def _open(self, path: str, flags: int) -> int:
        return _linux.openat2(self.view, path.strip("/") or ".", flags=flags, resolve=_BELOW)


def make_directory(parent: int, name: str, mode: int, owner: Owner) -> None:
    """Make a directory below ``parent``; one that exists is left as it is."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return
    os.chown(name, owner.uid, owner.gid, dir_fd=parent, follow_symlinks=False)


def make_file(parent: int, name: str, content: bytes, owner: Owner) -> None:
    """Make a file below ``parent``; one that exists is left as it is."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, 0o644, dir_fd=parent)
    except FileExistsError:
        return
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fchown(fd, owner.uid, owner.gid)
    finally:
        os.close(fd)


def make_missing(stage: Stage, path: GuestPath, kind: steps.Create, owner: Owner) -> None:
    """Make a mount point with the directories above it, on a file system of the container's."""
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        parent, name = stage.open_parent("/" + "/".join(parts[:depth]))  # type: ignore[arg-type]  # below path
        if depth == len(parts) and kind == "file":
            make_file(parent, name, b"", owner)
        else:
            make_directory(parent, name, 0o755, owner)
        os.close(parent)


def create_mount_point(stage: Stage, path: GuestPath, kind: steps.Create, owner: Owner) -> None:
    """Make what a mount needs under it, where the plan says that it is missing."""
    if kind != "no":
        make_missing(stage, path, kind, owner)


def device_node(stage: Stage, step: steps.DeviceNode) -> None:
    """Make a device node on the container's own /dev."""
    parent, name = stage.open_parent(step.target)
    device = os.makedev(step.major, step.minor)
    os.mknod(name, stat.S_IFCHR | step.mode, device, dir_fd=parent)
    os.chown(name, step.owner.uid, step.owner.gid, dir_fd=parent, follow_symlinks=False)
    os.close(parent)


def directory(stage: Stage, step: steps.Directory) -> None:
    """Make a directory on one of the container's own file systems."""
    parent, name = stage.open_parent(step.target)
    make_directory(parent, name, step.mode, step.owner)
    os.close(parent)


def symlink(stage: Stage, step: steps.Symlink) -> None:
    """Make a symbolic link on one of the container's own file systems."""
    parent, name = stage.open_parent(step.target)
    os.symlink(step.text, name, dir_fd=parent)
    os.chown(name, step.owner.uid, step.owner.gid, dir_fd=parent, follow_symlinks=False)
    os.close(parent)


def write_file(stage: Stage, step: steps.WriteFile) -> None:
    """Write a file on one of the container's own file systems."""
    parent, name = stage.open_parent(step.target)
    make_file(parent, name, os.fsencode(step.content), step.owner)
    os.close(parent)
