"""Which file systems of an image a run uses, and how: whoever reads them in the end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xbuild.errors import TargetError, UnsupportedImage, UsageError
from xbuild.image.content import map_paths
from xbuild.image.program import require_for_cell
from xbuild.plan.disk import Volume
from xbuild.plan.guest import locate
from xbuild.record import replace

if TYPE_CHECKING:
    from xbuild.image.survey import ImageMount, ImagePartition, ImageSurvey
    from xbuild.plan.guest import Place
    from xbuild.plan.request import Request
    from xbuild.record import GuestPath
    from xbuild.tree.resolve import TreeReader

ALWAYS_READ_ONLY = frozenset(("squashfs", "erofs", "iso9660", "cramfs"))
_CHECKS = {
    "ext4": ("e2fsck", "-f", "-y"),
    "vfat": ("fsck.fat", "-a"),
    "xfs": ("xfs_repair",),
    "btrfs": ("btrfs", "check", "--readonly"),
    "f2fs": ("fsck.f2fs", "-f", "-y"),
}
_JOURNALED = frozenset(("ext4", "xfs", "btrfs"))
# ext4 mounts its forerunners as they are, and unlike their own types can be idmapped.
_DRIVERS = {"ext2": "ext4", "ext3": "ext4"}


def volume_of(
    part: ImagePartition, *, subvolume: str | None = None, read_only: bool = False
) -> Volume:
    """Return how a partition is mounted. Raises UnsupportedImage, UsageError."""
    place, filesystem = part.partition, part.filesystem
    if filesystem is None:
        raise UnsupportedImage(
            f"Partition {place.number} has no file system that is known",
            "xbuild inspect IMAGE says what is in its partitions; --partition N takes another",
        )
    options: tuple[tuple[str, str | None], ...] = ()
    if subvolume is not None:
        if filesystem.type != "btrfs":
            raise UsageError(
                f"--subvolume is for btrfs; this root is {filesystem.type}", "leave it out"
            )
        options = (("subvol", subvolume),)
    return Volume(
        place.number,
        place.offset,
        place.size,
        _DRIVERS.get(filesystem.type, filesystem.type),
        subvolume,
        options,
        read_only or filesystem.type in ALWAYS_READ_ONLY,
    )


def wanted_below(
    survey: ImageSurvey, by_number: dict[int, ImagePartition], root: Volume
) -> tuple[tuple[Volume, ImageMount], ...]:
    """Return what fstab mounts below the root: each volume once, parents first."""
    found: dict[str, tuple[Volume, ImageMount]] = {}
    for mount in survey.mounts:
        if mount.target == "/" or by_number[mount.number].filesystem is None:
            continue
        words = mount.options.split(",")
        subvolume = next((w[7:] for w in words if w.startswith("subvol=")), None)
        if by_number[mount.number].filesystem.type != "btrfs":  # type: ignore[union-attr]  # not None: see above
            subvolume = None
        volume = volume_of(by_number[mount.number], subvolume=subvolume, read_only="ro" in words)
        if volume.name != root.name:
            found.setdefault(volume.name, (volume, mount))
    return tuple(found.values())


def place_of(reader: TreeReader, target: GuestPath, notes: list[str]) -> Place | None:
    """Return where fstab's ``target`` leads in the root; where nowhere, None and a note."""
    try:
        return locate(reader, target)
    except (UsageError, TargetError) as error:
        notes.append(f"fstab: {target} is passed over: {error.message}")
        return None


def checked(volume: Volume, request: Request) -> Volume:
    """Return a volume with the check that was asked for. Raises ImageToolMissing."""
    return with_check(volume) if request.fsck else volume


def with_check(volume: Volume) -> Volume:
    """Return a volume with its check, where there is one for it. Raises ImageToolMissing."""
    if volume.filesystem not in _CHECKS:
        return volume
    name, *options = _CHECKS[volume.filesystem]
    program = require_for_cell(name, f"repair {volume.filesystem}")
    return replace(volume, check=(program, *options))


def state_notes(survey: ImageSurvey, volumes: tuple[Volume, ...], request: Request) -> list[str]:
    """Return what there is to know of the file systems' state."""
    leaves_alone = request.read_only or request.ephemeral
    by_number = {part.partition.number: part.filesystem for part in survey.partitions}
    found = _stale_map_notes(request)
    for volume in volumes:
        filesystem = by_number[volume.partition]
        if filesystem is not None and filesystem.is_dirty:
            what = f"partition {volume.partition}" if volume.partition else "the image"
            found.append(
                f"{what} was not unmounted cleanly, or has errors ({filesystem.type}):"
                f" {_remedy(volume.filesystem, request)}"
            )
        if volume.filesystem in ALWAYS_READ_ONLY and not leaves_alone:
            found.append(
                f"{volume.filesystem} is always read-only; with --ephemeral changes are possible,"
                " and discarded"
            )
        elif request.fsck and volume.filesystem not in _CHECKS:
            found.append(f"--fsck: no program to check {volume.filesystem} is known")
    return list(dict.fromkeys(found))


def _stale_map_notes(request: Request) -> list[str]:
    """Return what there is to know of block maps beside an image that is written to."""
    if request.read_only or request.ephemeral:
        return []
    maps = [path for path in map_paths(request.target) if os.path.exists(path)]
    return [f"{path} will not fit any more: xbuild image pack makes a new one" for path in maps]


def _remedy(filesystem: str, request: Request) -> str:
    """Return what happens to a file system that is dirty."""
    has_journal = filesystem in _JOURNALED
    if request.read_only or request.ephemeral:
        if has_journal:
            return "what only its journal has is not seen, for nothing is written to it"
        return "nothing is written to it"
    if filesystem == "btrfs":
        return "its log is replayed" + ("; --fsck checks it before" if not request.fsck else "")
    if request.fsck:
        return "it is repaired first"
    return f"{'its journal is replayed; ' if has_journal else ''}--fsck repairs it"
