"""What a disk image is: its partitions, what each is for, the root's tree and what it mounts.

Nothing is mounted and nothing is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from xbuild.record import GuestPath, HostPath, Record

if TYPE_CHECKING:
    from xbuild.image.filesystem import Filesystem
    from xbuild.image.table import Partition, Table
    from xbuild.tree.survey import Survey

Role = Literal["root", "boot", "esp", "home", "swap", "lvm", "luks", "unknown"]

WHOLE_IMAGE = 0  # the number of what is no partition: an image that is one file system


class ImagePartition(Record):
    """A partition, what is in it, and what for. ``problem`` says why it cannot be used, or ""."""

    partition: Partition
    filesystem: Filesystem | None
    role: Role
    problem: str = ""


class ImageMount(Record):
    """What /etc/fstab has mounted: partition ``number`` at ``target``, options as written there."""

    number: int
    target: GuestPath
    options: str = ""


class ImageSurvey(Record):
    """What an image is. ``size`` is in bytes, that of the content where it is compressed.

    An image without a partition table has one partition of number WHOLE_IMAGE. ``root`` is the
    number of the partition with the root tree, None where there is none, and ``tree`` describes
    that tree. ``mounts`` are those of its fstab whose partitions are in this image, parents first;
    ``notes`` say what of fstab was left out and why. ``compression`` is "" for a raw image.
    """

    path: HostPath
    size: int
    table: Table
    partitions: tuple[ImagePartition, ...]
    root: int | None
    tree: Survey | None
    mounts: tuple[ImageMount, ...] = ()
    notes: tuple[str, ...] = ()
    compression: str = ""


def survey_image(path: HostPath, *, partition: str | None = None) -> ImageSurvey:
    """Look at an image, compressed or not; ``partition`` names the root by number or label.

    Raises DamagedImage, UnsupportedImage, AmbiguousRoot, NoSuchPartition, ImageToolMissing,
    TargetError.
    """
    raise NotImplementedError
