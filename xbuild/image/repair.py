"""Repairing what is too damaged to be looked into, so that a run in it can be planned at all."""

from __future__ import annotations

from xbuild.image.attach import attach_descriptor
from xbuild.image.lock import ImageLock
from xbuild.image.opening import kernel_has
from xbuild.image.survey import ImagePartition, ImageSurvey
from xbuild.image.volumes import volume_of, with_check
from xbuild.plan.disk import check_step
from xbuild.record import HostPath
from xbuild.sandbox.disk_failure import explain_check
from xbuild.sandbox.disks import run_check


def repair_unreadable(survey: ImageSurvey, lock: ImageLock, *, named: str | None) -> None:
    """Repair the file systems of an image, locked for writing, that could not be looked into.

    Only that which is ``named``, by number or label, if one is. What the programs say goes to
    standard error. Raises DamagedImage where one could not repair it all, ImageToolMissing,
    CannotAttach.
    """
    for item in survey.partitions:
        if _is_damaged(item) and (named is None or named in _names(item)):
            _repair(item, survey.path, lock)


def _names(item: ImagePartition) -> tuple[str, ...]:
    label = item.filesystem.label if item.filesystem is not None else ""
    return (str(item.partition.number), item.partition.name, label)


def _is_damaged(item: ImagePartition) -> bool:
    filesystem = item.filesystem
    if filesystem is None or not item.problem or not kernel_has(filesystem.type):
        return False
    # One that is larger than its partition was cut: no program brings the rest back.
    return filesystem.size is None or filesystem.size <= item.partition.size


def _repair(item: ImagePartition, image: HostPath, lock: ImageLock) -> None:
    volume = with_check(volume_of(item))
    if not volume.check:
        return
    step = check_step(volume)
    place = item.partition
    with attach_descriptor(lock.fd, image, place.offset, place.size, read_only=False) as loop:
        try:
            run_check(step, loop.fd, loop.path)
        except OSError as error:
            raise explain_check(step, image) from error
