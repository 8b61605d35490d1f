"""What a device is that an image shall be written to, as lsblk(8) and sysfs describe it.

Reading only; sysfs as in the kernel's Documentation/ABI/stable/sysfs-block. A regular file may
stand for a device.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any, Literal

from xbuild.errors import DeviceRefused, ImageError, TargetError
from xbuild.image.file import ImageFile
from xbuild.image.filesystem import Filesystem, filesystem_in
from xbuild.image.program import find_program, run_program
from xbuild.image.table import table_of
from xbuild.record import HostPath, Record
from xbuild.tree.path_walk import kind_of

DeviceKind = Literal["disk", "partition", "loop", "file"]

_SECTOR = 512  # of sysfs's sizes, whatever the device's own are
_NO_HARDWARE = ("loop", "file")
_COLUMNS = "MODEL,VENDOR,SERIAL,TRAN,RM,RO"


class Device(Record):
    """A device. ``node`` is its directory in sysfs, "" for a file; sizes are in bytes.

    ``rdev`` is its number, a file's inode; ``sequence`` the kernel's diskseq, which changes with
    the medium, 0 where the kernel has none.
    """

    path: HostPath
    kind: DeviceKind
    rdev: int
    size: int
    sector_size: int = _SECTOR
    model: str = ""
    serial: str = ""
    transport: str = ""
    is_removable: bool = True
    is_read_only: bool = False
    sequence: int = 0
    node: str = ""


def read_device(path: HostPath) -> Device:
    """Describe a block device or a regular file. Raises DeviceRefused for anything else."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DeviceRefused(f"Cannot find the device {path}: {reason}", _how_to_find(path)) from (
            error
        )
    if stat.S_ISREG(status.st_mode):
        return Device(
            path, "file", status.st_ino, status.st_size, transport="file", model="regular file"
        )
    if not stat.S_ISBLK(status.st_mode):
        raise DeviceRefused(
            f"{path} is {kind_of(status.st_mode)}, no block device", _how_to_find(path)
        )
    return _read_block(path, status.st_rdev)


def _how_to_find(path: str) -> str:
    if path.startswith("/dev/"):
        return "lsblk lists the devices"
    return f"for a card in a file, make one of its size first: truncate -s 8G {path}"


def _read_block(path: HostPath, rdev: int) -> Device:
    node = os.path.realpath(f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}")
    if not os.path.isdir(node):
        raise DeviceRefused(f"{path} leads to no device that the kernel knows", "is it plugged in?")
    facts = _lsblk(path)
    transport = _transport(node, facts)
    return Device(
        path,
        _kind(node),
        rdev,
        (_number(f"{node}/size")) * _SECTOR,
        _number(f"{node}/queue/logical_block_size") or _SECTOR,
        " ".join(filter(None, (_text(facts, "vendor"), _text(facts, "model"))))
        or read_attribute(f"{node}/device/name"),
        _text(facts, "serial") or read_attribute(f"{node}/device/serial"),
        transport,
        _is_removable(node, transport),
        read_attribute(f"{node}/ro") == "1",
        _number(f"{node}/diskseq"),
        node,
    )


def _kind(node: str) -> DeviceKind:
    if os.path.exists(f"{node}/partition"):
        return "partition"
    return "loop" if os.path.basename(node).startswith("loop") else "disk"


def _lsblk(path: HostPath) -> dict[str, Any]:  # Any: JSON
    if find_program("lsblk") is None:
        return {}
    output = run_program(
        "lsblk",
        ["--json", "--nodeps", "--output", _COLUMNS, path],
        purpose=f"look at {path}",
    )
    try:
        rows: list[dict[str, Any]] = json.loads(output.stdout)["blockdevices"]
    except (ValueError, KeyError):
        return {}
    return rows[0] if rows else {}


def _text(facts: dict[str, Any], key: str) -> str:
    value = facts.get(key)
    text = value.strip() if isinstance(value, str) else ""
    return "" if text.startswith("0x") else text  # a PCI vendor's number names nobody


def _transport(node: str, facts: dict[str, Any]) -> str:
    if _kind(node) == "loop":
        return "loop"
    return _text(facts, "tran") or ("mmc" if "/mmc_host/" in node else "")


def _is_removable(node: str, transport: str) -> bool:
    if transport == "mmc":  # a card is "SD"; "MMC" is soldered on
        return read_attribute(f"{node}/device/type") == "SD"
    # Not what can be unplugged: a USB disk with somebody's backups is no card.
    return transport in _NO_HARDWARE or read_attribute(f"{node}/removable") == "1"


def read_attribute(path: str) -> str:
    """Return an attribute of sysfs, "" where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _number(path: str) -> int:
    text = read_attribute(path)
    return int(text) if text.isascii() and text.isdigit() else 0


def describe_content(device: Device) -> tuple[str, ...]:
    """Say in a few lines what is on a device now; () for nothing known. Raises nothing for it."""
    try:
        with ImageFile(device.path) as image:
            return _content(image)
    except (ImageError, TargetError) as error:
        return (error.message,)
    except OSError as error:
        if error.errno == errno.ENOMEDIUM:
            return ("no medium",)
        return (f"unreadable: {error.strerror}",)


def _content(image: ImageFile) -> tuple[str, ...]:
    table = table_of(image)
    if table.kind == "none":
        whole = filesystem_in(image, 0, image.size)
        return (_named(whole),) if whole else ()
    rows = [f"{table.kind.upper()} partition table {table.disk_id}"]
    for partition in table.partitions:
        held = filesystem_in(image, partition.offset, partition.size)
        rows.append(f"{partition.number}: {partition.size >> 20} MiB, {_named(held)}")
    return tuple(rows)


def _named(filesystem: Filesystem | None) -> str:
    if filesystem is None:
        return "nothing known"
    label = f" {filesystem.label!r}" if filesystem.label else ""
    return filesystem.type + label
