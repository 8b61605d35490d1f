"""Plan a run in a disk image: find its root, mount it read-only to look, and decide."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xbuild.errors import HostUnable, TargetError, UnsupportedImage, UsageError
from xbuild.image.lock import lock_image
from xbuild.image.mounting import MountedImage, MountRefused, read_only
from xbuild.image.program import require_program
from xbuild.image.source import provide_source
from xbuild.image.survey import require_root, survey_image
from xbuild.plan import steps
from xbuild.plan.disk import Disk, Seat, Volume
from xbuild.plan.guest import locate
from xbuild.plan.host import Host
from xbuild.plan.make import plan_tree
from xbuild.record import replace
from xbuild.sandbox.disk_failure import explain_attach, explain_mount
from xbuild.tree.resolve import DirectoryReader

if TYPE_CHECKING:
    from xbuild.errors import ImageError
    from xbuild.image.compressed import Progress
    from xbuild.image.filesystem import Filesystem
    from xbuild.image.lock import ImageLock
    from xbuild.image.source import Source
    from xbuild.image.survey import ImageMount, ImagePartition, ImageSurvey
    from xbuild.plan.guest import Place
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Plan
    from xbuild.record import GuestPath, HostPath

ALWAYS_READ_ONLY = frozenset(("squashfs", "erofs", "iso9660", "cramfs"))
_CHECKS = {
    "ext4": ("e2fsck", "-f", "-y"),
    "vfat": ("fsck.fat", "-a"),
    "xfs": ("xfs_repair",),
    "btrfs": ("btrfs", "check", "--readonly"),
}
# ext4 mounts its forerunners as they are, and unlike their own types can be idmapped.
_DRIVERS = {"ext2": "ext4", "ext3": "ext4"}


def plan_image_run(request: Request, *, remember: bool, progress: Progress | None = None) -> Plan:
    """Look into the image that ``request`` names, and decide: as plan_run() for a directory.

    It is locked meanwhile, mounted read-only in a private mount namespace, and left as it was. A
    compressed one is unpacked first, beside it for a run that writes and ``remember``, else into
    a file without a name, whose descriptor stays open for the plan. ``progress`` is told of that.
    Raises ImageError subclasses, and XbuildError subclasses as plan_run() does.
    """
    leaves_alone = request.read_only or request.ephemeral
    if request.fsck and leaves_alone:
        raise UsageError("--fsck repairs, which --read-only and --ephemeral do not allow")
    host = Host.probe()
    if not host.privileged:
        raise HostUnable(
            f"Cannot attach {request.target}: loop devices need root",
            "run xbuild as root; or work in a copy of an ext file system:"
            f" mkdir TREE && debugfs -R 'rdump / TREE' '{request.target}?offset=BYTES'",
        )
    source = provide_source(
        request.target, writes=not leaves_alone, keep=remember, progress=progress
    )
    request = replace(request, target=source.path)
    with lock_image(source.opened, exclusive=not leaves_alone) as lock:
        survey = survey_image(
            source.opened, label=source.path, partition=request.partition, by_kernel=True
        )
        return _plan(request, host, survey, lock, source, remember=remember)


def _plan(
    request: Request,
    host: Host,
    survey: ImageSurvey,
    lock: ImageLock,
    source: Source,
    *,
    remember: bool,
) -> Plan:
    by_number = {part.partition.number: part for part in survey.partitions}
    root = _volume(require_root(survey), subvolume=request.subvolume)
    below = _wanted(survey, by_number, root)
    try:
        mounted = MountedImage(
            request.target, lock.fd, root, tuple((volume, each.target) for volume, each in below)
        )
    except MountRefused as refused:
        raise _explain(refused, request.target) from refused
    with mounted, DirectoryReader(mounted.path) as reader:
        reader.label = request.target
        disk = _describe(request, survey, lock, root, below, mounted, reader)
        disk = replace(disk, notes=(*source.notes, *disk.notes), descriptor=source.descriptor)
        return plan_tree(request, host, reader, remember=remember, disk=disk)


def _volume(
    part: ImagePartition, *, subvolume: str | None = None, read_only: bool = False
) -> Volume:
    place, filesystem = part.partition, part.filesystem
    if filesystem is None:
        raise UnsupportedImage(f"Partition {place.number} has no file system that is known")
    options: tuple[tuple[str, str | None], ...] = ()
    if subvolume is not None:
        if filesystem.type != "btrfs":
            raise UsageError(f"--subvolume is for btrfs; this root is {filesystem.type}")
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


def _wanted(
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
        volume = _volume(by_number[mount.number], subvolume=subvolume, read_only="ro" in words)
        if volume.name != root.name:
            found.setdefault(volume.name, (volume, mount))
    return tuple(found.values())


def _describe(
    request: Request,
    survey: ImageSurvey,
    lock: ImageLock,
    root: Volume,
    below: tuple[tuple[Volume, ImageMount], ...],
    mounted: MountedImage,
    reader: DirectoryReader,
) -> Disk:
    """Say how the run uses the image, now that it is known what can be mounted."""
    leaves_alone = request.read_only or request.ephemeral
    arrange = read_only if leaves_alone else (lambda volume: _checked(volume, request))
    notes = [*survey.notes, *_state_notes(survey, (root, *(v for v, _ in below)), leaves_alone)]
    seats, closed = [], []
    for index, (volume, mount) in enumerate(below):
        place = _place(reader, mount.target, notes)
        if place is None:
            continue
        number = mounted.refused.get(index)
        if number is None:
            seats.append(Seat(arrange(volume), place, mount.target))
            continue
        reason = _explain(MountRefused(number, volume, is_attached=True), request.target)
        where = "not there" if place.missing else "left read-only"
        notes.append(f"{mount.target} is {where}: {reason.message}; {reason.hint}")
        if not place.missing and not place.covered:
            closed.append(place.path)
    status = os.fstat(lock.fd)
    volumes = (root, *(seat.volume for seat in seats))
    return Disk(
        request.target,
        status.st_size,
        status.st_mtime_ns,
        is_exclusive=not leaves_alone and not all(v.read_only for v in volumes),
        root=arrange(root),
        seats=tuple(seats),
        closed=tuple(closed),
        notes=tuple(notes),
    )


def _place(reader: DirectoryReader, target: GuestPath, notes: list[str]) -> Place | None:
    try:
        return locate(reader, target)
    except (UsageError, TargetError) as error:
        notes.append(f"fstab: {target} is passed over: {error.message}")
        return None


def _checked(volume: Volume, request: Request) -> Volume:
    if not request.fsck or volume.filesystem not in _CHECKS:
        return volume
    name, *options = _CHECKS[volume.filesystem]
    program = require_program(name, f"repair {volume.filesystem}")
    return replace(volume, check=(program, *options))


def _state_notes(survey: ImageSurvey, volumes: tuple[Volume, ...], leaves_alone: bool) -> list[str]:
    by_number = {part.partition.number: part.filesystem for part in survey.partitions}
    found = []
    for volume in volumes:
        filesystem = by_number[volume.partition]
        if filesystem is not None and filesystem.is_dirty:
            found.append(_dirt(volume, filesystem, leaves_alone))
        if volume.filesystem in ALWAYS_READ_ONLY and not leaves_alone:
            found.append(
                f"{volume.filesystem} is always read-only; with --ephemeral changes are possible,"
                " and discarded"
            )
    return list(dict.fromkeys(found))


def _dirt(volume: Volume, filesystem: Filesystem, leaves_alone: bool) -> str:
    what = f"partition {volume.partition}" if volume.partition else "the image"
    text = f"{what} was not unmounted cleanly, or has errors ({filesystem.type})"
    if leaves_alone:
        return f"{text}: what only its journal has is not seen, for nothing is written to it"
    return f"{text}: the kernel replays its journal; --fsck repairs it"


def _explain(refused: MountRefused, image: HostPath) -> ImageError:
    volume = refused.volume
    if not refused.is_attached:
        return explain_attach(refused.number, "", image)
    step = steps.MountFilesystem(volume.name, volume.partition, volume.filesystem)
    return explain_mount(refused.number, step, image)
