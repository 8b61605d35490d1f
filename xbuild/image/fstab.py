"""An image's /etc/fstab (fstab(5)): which of its partitions are mounted where.

The file is not trusted, and describes a machine that is not here: what it says is matched with the
image's own partitions, and whatever leads elsewhere is left out with a note.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from xbuild.image.filesystem import Filesystem
from xbuild.image.table import Partition
from xbuild.record import GuestPath, Record

FSTAB = GuestPath("/etc/fstab")
FSTAB_LIMIT = 256 << 10  # bytes
_LINES_LIMIT = 1000
_DEFAULTS = ("auto", "defaults")  # fs_vfstype, fs_mntops
_NOTE_LIMIT = 80  # characters of the file quoted in a note

_ESCAPE = re.compile(r"\\([0-7]{3})")
_DEVICE = re.compile(
    r"/dev/((?:mmcblk|nvme\d+n|loop|nbd)\d+)p([0-9]{1,4})|/dev/([shv]d[a-z]+|xvd[a-z]+)([0-9]{1,4})"
)
_BY = {
    "/dev/disk/by-uuid/": "UUID",
    "/dev/disk/by-label/": "LABEL",
    "/dev/disk/by-partuuid/": "PARTUUID",
    "/dev/disk/by-partlabel/": "PARTLABEL",
}
# Not mounted from a disk, or no business of an image's: fs_vfstype, and what else stands first.
_VIRTUAL = frozenset((
    "autofs", "bpf", "cgroup", "cgroup2", "cifs", "configfs", "debugfs", "devpts", "devtmpfs",
    "efivarfs", "fuse", "hugetlbfs", "ignore", "mqueue", "nfs", "nfs4", "none", "overlay", "proc",
    "pstore", "securityfs", "smb3", "swap", "sysfs", "tmpfs", "tracefs",
))  # fmt: skip
_OURS = ("/proc", "/sys", "/dev", "/run", "/tmp")  # mounted by the container


class FstabEntry(Record):
    """One line: ``source`` (fs_spec), ``target`` (fs_file), ``type`` and ``options``, unescaped."""

    source: str
    target: str
    type: str
    options: str


class ImageMount(Record):
    """What fstab has mounted: partition ``number`` at ``target``, options as written there.

    ``target`` is absolute and has no "..", but may lead through symlinks of the tree.
    """

    number: int
    target: GuestPath
    options: str = ""


def parse_fstab(text: str) -> tuple[FstabEntry, ...]:
    """Return the entries of an fstab; a line of one field is an entry without a mount point."""
    entries = []
    for line in text.splitlines()[:_LINES_LIMIT]:
        fields = [_unescaped(field) for field in line.split()]
        if fields and not fields[0].startswith("#"):
            kind, options = (
                [*fields[2:4], "auto", "defaults"][:2]
                if len(fields) > 3
                else (fields[2] if len(fields) > 2 else "auto", "defaults")
            )
            entries.append(FstabEntry(fields[0], "".join(fields[1:2]), kind, options))
    return tuple(entries)


def _unescaped(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)


def match_fstab(
    entries: Sequence[FstabEntry],
    partitions: Sequence[tuple[Partition, Filesystem | None]],
    root: int,
) -> tuple[tuple[ImageMount, ...], tuple[str, ...]]:
    """Return what is mounted where, "/" first and parents before children, and notes on the rest.

    ``root`` is the number of the partition that the fstab is in: whatever is said of "/" is it.
    """
    found: dict[GuestPath, ImageMount] = {}
    notes: list[str] = []
    disks = _disks(entries)
    for entry in entries:
        if entry.type.partition(".")[0] in _VIRTUAL or _is_bind(entry):
            continue
        target = _target(entry.target)
        problem = _problem(entry, target)
        if target is None or problem:
            notes.append(f"fstab: {_quoted(entry)}: {problem}")
            continue
        number = root if target == "/" else _number_of(entry.source, partitions, disks)
        if number is None:
            notes.append(f"fstab: {_quoted(entry)}: no partition of this image")
        elif target in found:
            notes.append(f"fstab: {_quoted(entry)}: {target} is mounted by a line before")
        else:
            found[target] = ImageMount(number, target, entry.options)
    ordered = sorted(found.values(), key=lambda m: (m.target.count("/"), m.target))
    ordered.sort(key=lambda m: m.target != "/")
    return tuple(ordered), tuple(notes)


def _is_bind(entry: FstabEntry) -> bool:
    return bool({"bind", "rbind"} & set(entry.options.split(",")))


def _target(path: str) -> GuestPath | None:
    """Return a mount point in its plain form, None for what is no absolute path of plain names."""
    if not path.startswith("/") or ".." in path.split("/") or not path.isprintable():
        return None
    if len(path) > 4095:
        return None
    return GuestPath("/" + posixpath.normpath(path).lstrip("/"))


def _problem(entry: FstabEntry, target: GuestPath | None) -> str:
    """Return why an entry is left out, "" for one that is not."""
    if target is None:
        return "not an absolute path inside the tree"
    if any(target == path or target.startswith(f"{path}/") for path in _OURS):
        return "not mounted there: the container has its own"
    if "noauto" in entry.options.split(","):
        return "noauto: not mounted by itself"
    return ""


def _quoted(entry: FstabEntry) -> str:
    text = f"{entry.source} {entry.target}".rstrip()
    return text if len(text) <= _NOTE_LIMIT else f"{text[:_NOTE_LIMIT]}…"


def _disks(entries: Sequence[FstabEntry]) -> frozenset[str]:
    """Return the disks that stand for this image: that of the line of "/", else all named."""
    named = {entry.target: _disk(entry.source) for entry in entries}
    root = named.get("/")
    return frozenset([root] if root else filter(None, named.values()))


def _disk(source: str) -> str | None:
    match = _DEVICE.fullmatch(source)
    return (match[1] or match[3]) if match else None


def _number_of(
    source: str,
    partitions: Sequence[tuple[Partition, Filesystem | None]],
    disks: frozenset[str],
) -> int | None:
    """Return the number of the partition that ``source`` names, None for none or several."""
    for prefix, key in _BY.items():
        if source.startswith(prefix):
            source = f"{key}={source.removeprefix(prefix)}"
    key, equals, value = source.partition("=")
    if equals:
        value = value.strip("\"'")
        numbers = [p.number for p, fs in partitions if value and _has(key, value, p, fs)]
    elif len(disks) == 1 and (match := _DEVICE.fullmatch(source)) and _disk(source) in disks:
        wanted = int(match[2] or match[4])
        numbers = [p.number for p, _ in partitions if p.number == wanted]
    else:
        numbers = []
    return numbers[0] if len(numbers) == 1 else None


def _has(key: str, value: str, partition: Partition, filesystem: Filesystem | None) -> bool:
    match key:
        case "UUID":
            return filesystem is not None and filesystem.uuid.lower() == value.lower()
        case "LABEL":
            return filesystem is not None and filesystem.label == value
        case "PARTUUID":
            return partition.partuuid == value.lower()
        case "PARTLABEL":
            return partition.name == value
        case _:
            return False
