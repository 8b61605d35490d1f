"""Who holds a tree: processes that use it, and mount namespaces in which it is mounted.

Reading only, and as far as the caller may look. Not to be seen from outside: the lower layer of an
overlay that another namespace mounted through a descriptor.
"""

from __future__ import annotations

import os

from xbuild.record import HostPath, Record
from xbuild.sandbox.mountinfo import MountRow, is_within, mount_of, read_mountinfo
from xbuild.sandbox.sysfs import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PF_KTHREAD = 0x00200000  # linux/sched.h
_OVERLAY_LAYERS = ("lowerdir", "upperdir", "workdir")


class Holder(Record):
    """A process, its name as in ps(1), and how it holds the tree."""

    pid: int
    name: str
    how: str

    def __str__(self) -> str:
        return f"{self.name} ({self.pid})"


class Holders(Record):
    """``unseen`` counts the processes that the caller may not look into."""

    found: tuple[Holder, ...]
    unseen: int


def find_holders(tree: HostPath) -> Holders:
    """Return who holds ``tree``, an absolute path without symlinks, but for the caller itself.

    Raises FileNotFoundError when the tree is gone.
    """
    place = _Place(tree)
    found, unseen = [], 0
    for pid in processes():
        if pid == os.getpid():
            continue
        try:
            how = place.held_by(pid)
        except PermissionError:
            unseen += not _is_kernel_thread(pid)
            continue
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        if how:
            found.append(Holder(pid, name_of(pid), how))
    return Holders(tuple(found), unseen)


class _Place:
    """A tree as this namespace names it, and as any other does: a device and a path on it."""

    def __init__(self, tree: HostPath) -> None:
        self._tree = tree
        self._mount = mount_of(tree)
        below = os.path.relpath(tree, self._mount.point)
        self._root = os.path.normpath(os.path.join(self._mount.root, below))
        self._namespace = os.stat("/proc/self/ns/mnt").st_ino
        self._known = {self._namespace: False}

    def held_by(self, pid: int) -> str:
        """Say how a process holds the tree, "" if it does not."""
        namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
        if namespace not in self._known:
            self._known[namespace] = any(self._is_shown_by(row) for row in read_mountinfo(pid))
        if self._known[namespace]:
            return "has it mounted"
        # Links of another namespace's processes name paths of that namespace.
        return self._used_by(pid) if namespace == self._namespace else ""

    def _is_shown_by(self, row: MountRow) -> bool:
        if row.filesystem == "overlay":
            options = (option.partition("=") for option in row.super_options.split(","))
            layers = (value for key, _, value in options if key in _OVERLAY_LAYERS)
            if any(is_within(path, self._tree) for value in layers for path in value.split(":")):
                return True
        if row.device != self._mount.device or not is_within(row.root, self._root):
            return False
        # A copy that receives this namespace's unmounting does not keep anything.
        return not row.groups & self._mount.groups

    def _used_by(self, pid: int) -> str:
        uses = {"root": "has it as root", "cwd": "works in it", "exe": "runs a program of it"}
        for link, how in uses.items():
            try:
                if self._is_inside(os.readlink(f"/proc/{pid}/{link}")):
                    return how
            except FileNotFoundError:
                continue  # a kernel thread has no exe
        if any(self._is_inside(path) for path in _open_files(pid)):
            return "has a file of it open"
        if any(self._is_inside(path) for path in _mapped_files(pid)):
            return "has a file of it mapped"
        return ""

    def _is_inside(self, path: str) -> bool:
        return is_within(path.removesuffix(" (deleted)"), self._tree)


def name_of(pid: int) -> str:
    """Return the name of a process as in ps(1), "?" once it has ended."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return "?"


def living_descendants() -> tuple[int, ...]:
    """Return the children of this process, and theirs, that have not ended."""
    found: list[int] = []
    pending = [os.getpid()]
    while pending:
        for child in _children(pending.pop()):
            pending.append(child)
            if not _has_ended(child):
                found.append(child)
    return tuple(found)


def _open_files(pid: int) -> Iterator[str]:
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            yield os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue


def _mapped_files(pid: int) -> Iterator[str]:
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.rstrip("\n").split(None, 5)
            if len(fields) > 5 and fields[5].startswith("/"):
                yield fields[5].replace("\\012", "\n")


def _children(pid: int) -> list[int]:
    try:
        found = []
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
    except OSError:  # it has ended, or the kernel lacks CONFIG_PROC_CHILDREN
        return []
    return found


def _has_ended(pid: int) -> bool:
    return _stat_fields(pid)[0] in ("Z", "X")


def _is_kernel_thread(pid: int) -> bool:
    return bool(int(_stat_fields(pid)[6]) & _PF_KTHREAD)


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the state on, those of a dead one when gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return ["X", *"000000"]
