"""Plan a run in a disk image: find its root, mount it read-only to look, and decide."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from xbuild.errors import DamagedImage, UnsupportedImage, UsageError
from xbuild.image.lock import lock_image
from xbuild.image.mounting import MountedImage, MountRefused, read_only
from xbuild.image.repair import repair_unreadable
from xbuild.image.served import plan_served_run
from xbuild.image.source import provide_source
from xbuild.image.survey import require_root, survey_image
from xbuild.image.volumes import checked, place_of, state_notes, volume_of, wanted_below
from xbuild.plan import steps
from xbuild.plan.disk import Disk, Seat, Volume
from xbuild.plan.host import Host
from xbuild.plan.make import plan_tree
from xbuild.record import replace
from xbuild.sandbox.disk_failure import explain_attach, explain_mount
from xbuild.tree.resolve import DirectoryReader

if TYPE_CHECKING:
    from xbuild.errors import ImageError
    from xbuild.image.compressed import Progress
    from xbuild.image.lock import ImageLock
    from xbuild.image.source import Source
    from xbuild.image.survey import ImageMount, ImageSurvey
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Plan
    from xbuild.record import HostPath


def plan_image_run(request: Request, *, remember: bool, progress: Progress | None = None) -> Plan:
    """Look into the image that ``request`` names, and decide: as plan_run() for a directory.

    It is locked meanwhile, for root mounted read-only in a private mount namespace, else read by
    programs (see plan_served_run()), and left as it was. But a compressed one is unpacked first,
    beside it for a run that writes and ``remember``, else into a file without a name, whose
    descriptor stays open for the plan; ``progress`` is told of that. And with ``remember`` a root
    that is to be repaired is so at once, where it cannot be looked into otherwise. Raises
    ImageError subclasses, and XbuildError subclasses as plan_run() does.
    """
    leaves_alone = request.read_only or request.ephemeral
    if request.fsck and leaves_alone:
        raise UsageError(
            "--fsck repairs, which --read-only and --ephemeral do not allow",
            "first xbuild run --fsck IMAGE true",
        )
    if request.exclusive and leaves_alone:
        raise UsageError(
            f"--exclusive: {request.target} is not written, and others may read it meanwhile",
            "leave it out; without --read-only and --ephemeral a run has an image alone anyway",
        )
    host = Host.probe()
    source = provide_source(
        request.target, writes=not leaves_alone, keep=remember, progress=progress
    )
    request = replace(request, target=source.path)
    with lock_image(source.opened, exclusive=not leaves_alone) as lock:
        if not host.privileged:
            return plan_served_run(request, host, lock, source, remember=remember)
        survey = _survey(request, source, lock, repairs=request.fsck and remember)
        return _plan(request, host, survey, lock, source, remember=remember)


def _survey(request: Request, source: Source, lock: ImageLock, *, repairs: bool) -> ImageSurvey:
    """Look at the image; with ``repairs`` once more where no root can be looked into."""

    def look(partition: str | None) -> ImageSurvey:
        return survey_image(source.opened, label=source.path, partition=partition, by_kernel=True)

    if not repairs:
        return look(request.partition)
    with suppress(DamagedImage, UnsupportedImage):
        survey = look(request.partition)
        if survey.root is not None:
            return survey
    repair_unreadable(look(None), lock, named=request.partition)
    return look(request.partition)


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
    root = volume_of(require_root(survey), subvolume=request.subvolume)
    below = wanted_below(survey, by_number, root)
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
    arrange = read_only if leaves_alone else (lambda volume: checked(volume, request))
    notes = [*survey.notes, *state_notes(survey, (root, *(v for v, _ in below)), request)]
    seats, closed, unmounted = [], [], []
    for index, (volume, mount) in enumerate(below):
        place = place_of(reader, mount.target, notes)
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
        if (alone := arrange(volume)).check:
            unmounted.append(alone)
    status = os.fstat(lock.fd)
    is_written = bool(unmounted) or not all(v.read_only for v in (root, *(s.volume for s in seats)))
    return Disk(
        request.target,
        status.st_size,
        status.st_mtime_ns,
        is_exclusive=not leaves_alone and is_written,
        root=arrange(root),
        seats=tuple(seats),
        closed=tuple(closed),
        notes=tuple(notes),
        unmounted=tuple(unmounted),
    )


def _explain(refused: MountRefused, image: HostPath) -> ImageError:
    volume = refused.volume
    if not refused.is_attached:
        return explain_attach(refused.number, "", image)
    step = steps.MountFilesystem(volume.name, volume.partition, volume.filesystem)
    return explain_mount(refused.number, step, image)
