"""What holds a tree or an image: processes, mounts in any namespace, loop devices, swap, locks.

Reading only, and as far as the caller may look.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator
from typing import Literal

from xbuild.record import HostPath, Record
from xbuild.sandbox.filelock import lock_holders
from xbuild.sandbox.holders import find_holders, name_of
from xbuild.sandbox.loop import loops_of
from xbuild.sandbox.mountinfo import MountRow, is_within, read_mountinfo
from xbuild.sandbox.sysfs import BLOCKS, backing_file_of, names_in, processes, text_of
from xbuild.tree.resolve import target_error

UseKind = Literal["process", "mount", "loop", "swap", "lock", "mapping"]


class Use(Record):
    """One thing that holds: what it is, how it holds, and what to do about it.

    ``pid`` is a process of the mount namespace of a mount, 0 for the caller's own; ``place`` is a
    mount point there, or a device.
    """

    kind: UseKind
    text: str
    hint: str
    pid: int = 0
    place: str = ""


class Uses(Record):
    """``unseen`` counts the processes that the caller may not look into."""

    path: HostPath
    found: tuple[Use, ...]
    unseen: int


def find_uses(path: HostPath) -> Uses:
    """Return what holds a directory, an image file or a block device.

    Raises TargetNotFound, TargetError.
    """
    real = HostPath(os.path.realpath(path))
    try:
        mode = os.stat(real).st_mode
    except OSError as error:
        raise target_error(path, error) from error
    if stat.S_ISDIR(mode):
        return _uses_of_tree(real)
    return _uses_of_image(real, is_device=stat.S_ISBLK(mode))


def _uses_of_tree(tree: HostPath) -> Uses:
    found = list(_mounts_below(tree))
    for loop in _all_loops():
        backing = backing_file_of(os.path.basename(loop))
        if is_within(backing, tree):
            found += _uses_of_loop(loop, backing)
    found += _swaps(lambda name: is_within(name, tree))
    holders = find_holders(tree)
    for holder in holders.found:
        found.append(_process(holder.pid, holder.how))
    return Uses(tree, tuple(found), holders.unseen)


def _mounts_below(tree: str) -> Iterator[Use]:
    rows = [row for row in read_mountinfo() if is_within(row.point, tree)]
    for row in reversed(rows):
        hint = f"umount {shlex.quote(row.point)}"
        if row.tags:
            place = shlex.quote(row.point)
            hint = f"mount --make-rprivate {place}; umount -R {place} (shared: in this order)"
        yield Use("mount", f"{row.filesystem} is mounted on {row.point}", hint, 0, row.point)


def _uses_of_image(image: HostPath, *, is_device: bool) -> Uses:
    found = list(_uses_of_device(image) if is_device else _uses_of_file(image))
    openers, unseen = _openers(image)
    locked = _lock_holders(image)
    for pid in locked:
        found.append(Use("lock", f"{_named(pid)} has locked it", _end(pid), pid))
    found += [_process(pid, "has it open") for pid in openers if pid not in locked]
    return Uses(image, tuple(found), unseen)


def _uses_of_file(path: str) -> Iterator[Use]:
    yield from _swaps(lambda name: name == path)
    for loop in loops_of(path):
        yield from _uses_of_loop(loop, path)


def _uses_of_device(device: str) -> Iterator[Use]:
    """Yield the uses of a disk and of its partitions, those of what is made of it first."""
    yield from _mounts_of(device)
    nodes = _nodes_of(device)
    for node in nodes:
        for holder in names_in(f"/sys/class/block/{os.path.basename(node)}/holders"):
            label = text_of(f"{BLOCKS}/{holder}/dm/name") or holder
            hint = f"dmsetup remove {label} (kpartx -d, vgchange -an, cryptsetup close)"
            yield Use("mapping", f"{label} is made of {node}", hint, 0, label)
        for loop in loops_of(node) if os.path.exists(node) else ():
            yield from _uses_of_loop(loop, node)
    yield from _swaps(lambda swap: swap in nodes)


def _uses_of_loop(loop: str, backing: str) -> Iterator[Use]:
    yield from _uses_of_device(loop)
    name = os.path.basename(loop)
    for pid in _openers(HostPath(loop))[0]:
        yield _process(pid, f"has {loop} open")
    marks = []
    if text_of(f"{BLOCKS}/{name}/ro") == "1":
        marks.append("read-only")
    goes = text_of(f"{BLOCKS}/{name}/loop/autoclear") == "1"
    marks.append("goes with its last user" if goes else "stays until it is detached")
    hint = "nothing to do: end what uses it" if goes else f"losetup -d {loop}"
    yield Use("loop", f"{loop} shows {backing} ({', '.join(marks)})", hint, 0, loop)


def _mounts_of(device: str) -> Iterator[Use]:
    numbers = {_number(node) for node in _nodes_of(device)}
    for pid, rows in mount_tables():
        for row in reversed(rows):
            if row.device not in numbers and row.source not in _nodes_of(device):
                continue
            text = f"{row.source} is mounted on {row.point}"
            place = shlex.quote(row.point)
            if pid:
                text += f" in the mount namespace of {_named(pid)}"
                yield Use("mount", text, f"{_end(pid)}: its mounts go with it", pid, row.point)
            else:
                hint = f"mount --make-rprivate {place}; umount -R {place}"
                yield Use("mount", text, hint, 0, row.point)


def mount_tables() -> Iterator[tuple[int, tuple[MountRow, ...]]]:
    """Yield the mounts of each mount namespace, with a process in it: 0 for the caller's own."""
    yield 0, read_mountinfo()
    seen = {os.stat("/proc/self/ns/mnt").st_ino}
    for pid in processes():
        try:
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if namespace in seen:
                continue
            rows = read_mountinfo(pid)
        except OSError:
            continue  # it has ended, or is not ours to look into
        seen.add(namespace)
        yield pid, rows


def _openers(path: HostPath) -> tuple[list[int], int]:
    """Return the processes that have a file open, and how many could not be looked into."""
    wanted = os.stat(path)
    identity = (wanted.st_dev, wanted.st_ino)
    found, unseen = [], 0
    for pid in processes():
        if pid == os.getpid():
            continue
        try:
            if any(_identity(f"/proc/{pid}/fd/{n}") == identity for n in _listed(pid)):
                found.append(pid)
        except PermissionError:
            unseen += 1
        except OSError:
            continue  # it has ended
    return found, unseen


def _listed(pid: int) -> list[str]:
    return os.listdir(f"/proc/{pid}/fd")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _lock_holders(image: HostPath) -> tuple[int, ...]:
    try:
        fd = os.open(image, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ()
    try:
        return lock_holders(fd)
    finally:
        os.close(fd)


def _swaps(matches: Callable[[str], bool]) -> Iterator[Use]:
    for line in text_of("/proc/swaps").splitlines()[1:]:
        name = line.split()[0].replace("\\040", " ")
        if matches(name):
            yield Use("swap", f"{name} is in use as swap", f"swapoff {shlex.quote(name)}", 0, name)


def _process(pid: int, how: str) -> Use:
    return Use("process", f"{_named(pid)} {how}", _end(pid), pid)


def _named(pid: int) -> str:
    return f"{name_of(pid)} ({pid})"


def _end(pid: int) -> str:
    return f"end it: kill {pid}"


def _nodes_of(device: str) -> tuple[str, ...]:
    """Return a block device and its partitions."""
    name = os.path.basename(device)
    parts = [n for n in names_in(f"{BLOCKS}/{name}") if n.startswith(name)]
    return (device, *(f"/dev/{part}" for part in parts))


def _number(device: str) -> str:
    return text_of(f"/sys/class/block/{os.path.basename(device)}/dev")


def _all_loops() -> list[str]:
    return [f"/dev/{n}" for n in names_in(BLOCKS) if os.path.exists(f"{BLOCKS}/{n}/loop")]
