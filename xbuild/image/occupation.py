"""Who uses a disk: mounts in any mount namespace that one may read, swap, holders, this system.

Reading only. The kernel itself answers an O_EXCL open with EBUSY; this is for saying why, and for
what O_EXCL does not tell: which disk the running system is on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from xbuild.image.device import Device, read_attribute
from xbuild.record import Record
from xbuild.sandbox.holders import name_of
from xbuild.sandbox.mountinfo import MountRow, read_mountinfo

_SYSTEM_PATHS = ("/", "/usr", "/boot", "/boot/efi", "/boot/firmware", "/etc", "/var")


class Occupation(Record):
    """What uses a disk or one of its partitions, each in words; ``is_system`` outranks all."""

    mounts: tuple[str, ...] = ()
    swaps: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    is_system: bool = False


def read_occupation(device: Device) -> Occupation:
    """Look who uses a device. A file's users are found by its lock and its loop devices."""
    if device.kind == "file":
        return Occupation()
    nodes = tuple(_with_partitions(device.node))
    numbers = {read_attribute(f"{node}/dev"): os.path.basename(node) for node in nodes}
    return Occupation(
        tuple(dict.fromkeys(_mounts(numbers))),
        tuple(_swaps(numbers)),
        tuple(_holders(nodes)),
        _whole_disk(device.node) in _system_disks(),
    )


def _with_partitions(node: str) -> Iterator[str]:
    yield node
    for name in sorted(os.listdir(node)):
        if os.path.exists(f"{node}/{name}/partition"):
            yield f"{node}/{name}"


def _whole_disk(node: str) -> str:
    return os.path.dirname(node) if os.path.exists(f"{node}/partition") else node


def _mounts(numbers: dict[str, str]) -> Iterator[str]:
    for pid, rows in _namespaces():
        for row in rows:
            number = _number_of(row)
            if number and number in numbers:
                where = f"on {row.point}"
                if pid:
                    where += f" for {name_of(pid)} ({pid}), in another mount namespace"
                yield f"{numbers[number]} is mounted {where}"


def _namespaces() -> Iterator[tuple[int, tuple[MountRow, ...]]]:
    """Yield the mounts of each mount namespace, with a process in it; 0 is ourselves."""
    yield 0, read_mountinfo()
    seen = {os.stat("/proc/self/ns/mnt").st_ino}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            namespace = os.stat(f"/proc/{name}/ns/mnt").st_ino
            if namespace in seen:
                continue
            rows = read_mountinfo(int(name))
        except OSError:
            continue  # it has ended, or is not ours to look into
        seen.add(namespace)
        yield int(name), rows


def _number_of(row: MountRow) -> str:
    """Return major:minor; btrfs and overlay have none of a device, but may name one."""
    if not row.device.startswith("0:"):
        return row.device
    return _number_at(row.source) if row.source.startswith("/dev/") else ""


def _number_at(path: str) -> str:
    try:
        rdev = os.stat(path).st_rdev
    except OSError:
        return ""
    return f"{os.major(rdev)}:{os.minor(rdev)}" if rdev else ""


def _swaps(numbers: dict[str, str]) -> Iterator[str]:
    try:
        with open("/proc/swaps", encoding="utf-8", errors="surrogateescape") as file:
            paths = [line.split()[0] for line in file.readlines()[1:]]
    except OSError:
        return
    for path in paths:
        number = _number_at(path.removesuffix("\\040(deleted)"))
        if number and number in numbers:
            yield f"{numbers[number]} is in use as swap"


def _holders(nodes: tuple[str, ...]) -> Iterator[str]:
    for node in nodes:
        try:
            names = sorted(os.listdir(f"{node}/holders"))
        except OSError:
            continue
        for name in names:
            kind = read_attribute(f"/sys/block/{name}/dm/uuid").partition("-")[0].lower()
            shown = read_attribute(f"/sys/block/{name}/dm/name") or name
            what = {"lvm": "LVM volume", "crypt": "encrypted volume"}.get(kind, "array or volume")
            yield f"{os.path.basename(node)} is part of the {what} {shown}"


def _system_disks() -> frozenset[str]:
    """Return the sysfs directories of the disks below this system's own directories."""
    numbers = {_number_of(row) for row in read_mountinfo() if row.point in _SYSTEM_PATHS}
    for path in _SYSTEM_PATHS:
        try:
            device = os.stat(path).st_dev
        except OSError:
            continue
        numbers.add(f"{os.major(device)}:{os.minor(device)}")
    return frozenset(disk for number in numbers if number for disk in _disks_below(number))


def _disks_below(number: str) -> Iterator[str]:
    node = os.path.realpath(f"/sys/dev/block/{number}")
    if not os.path.isdir(node):
        return
    disk = _whole_disk(node)
    yield disk
    for slave in _names(f"{node}/slaves"):
        yield from _disks_below(read_attribute(f"{node}/slaves/{slave}/dev"))


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
