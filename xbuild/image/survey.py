"""What a disk image is: its partitions, what each is for, the root's tree and what it mounts.

Nothing is written, and nothing mounted where anyone could see it. A compressed image is read once,
and what there is to look at kept in a file without a name: see xbuild.image.streamed.
"""

from __future__ import annotations

import os

from xbuild.binary.arch import arch_named
from xbuild.errors import (
    AmbiguousRoot,
    DamagedImage,
    ImageError,
    NoSuchPartition,
    TargetError,
    TargetNotFound,
    UnsupportedImage,
)
from xbuild.image.closing import Closing
from xbuild.image.compressed import Progress, compression
from xbuild.image.file import ImageFile
from xbuild.image.filesystem import Filesystem, filesystem_in
from xbuild.image.fstab import FSTAB, FSTAB_LIMIT, match_fstab, parse_fstab
from xbuild.image.fstab import ImageMount as ImageMount
from xbuild.image.recognise import RECOGNISE_BYTES, refuse_foreign
from xbuild.image.roles import ROOT_TYPES, role_of
from xbuild.image.roles import Role as Role
from xbuild.image.root import (
    Found,
    Root,
    describe,
    find_roots,
    judge_partition,
    look_for_root,
    named_partition,
    no_root_in,
    require_usable,
)
from xbuild.image.streamed import Streamed, stream_image
from xbuild.image.table import Partition, Table, table_of
from xbuild.record import HostPath, Record, replace
from xbuild.tree.resolve import TreeReader
from xbuild.tree.survey import Survey

WHOLE_IMAGE = 0  # the number of what is no partition: an image that is one file system


class ImagePartition(Record):
    """A partition, what is in it, and what for.

    ``problem`` says why it cannot be used, or "", and ``hint`` what to do about that.
    """

    partition: Partition
    filesystem: Filesystem | None
    role: Role
    problem: str = ""
    hint: str = ""


class ImageSurvey(Record):
    """What an image is. ``size`` is in bytes, that of the content where it is compressed.

    An image without a partition table has one partition of number WHOLE_IMAGE. ``root`` is the
    number of the partition with the root tree, None where there is none or where several of
    ``candidates`` could be it: require_root() tells. ``tree`` describes that tree. ``mounts`` are
    those of its fstab whose partitions are in this image, parents first and without "/" itself,
    whose options are ``root_options``; ``notes`` say what was left out and why. ``compression`` is
    "" for a raw image.
    """

    path: HostPath
    size: int
    table: Table
    partitions: tuple[ImagePartition, ...]
    root: int | None
    tree: Survey | None
    mounts: tuple[ImageMount, ...] = ()
    root_options: str = ""
    notes: tuple[str, ...] = ()
    candidates: tuple[int, ...] = ()
    compression: str = ""


class SurveyedImage(Closing):
    """A survey, and the root's tree while it is open; None where there is no root."""

    def __init__(self, image: ImageFile, survey: ImageSurvey, reader: TreeReader | None) -> None:
        self.survey = survey
        self.reader = reader
        self._image = image

    def close(self) -> None:
        """Give back what is held; a second call does nothing."""
        if self.reader is not None:
            self.reader.close()
        self._image.close()


def survey_image(
    path: HostPath, *, label: str = "", partition: str | None = None, by_kernel: bool = False
) -> ImageSurvey:
    """Look at an image, compressed or not; ``partition`` names the root by number or label.

    ``by_kernel`` and ``label``: see ImageFile. An image without a root, or with several, is no
    error here: see require_root(). Raises DamagedImage, UnsupportedImage, NoSuchPartition,
    ImageToolMissing, TargetError.
    """
    with open_survey(path, label=label, partition=partition, by_kernel=by_kernel) as surveyed:
        return surveyed.survey


def open_survey(
    path: HostPath,
    *,
    label: str = "",
    partition: str | None = None,
    full: bool = False,
    progress: Progress | None = None,
    by_kernel: bool = False,
) -> SurveyedImage:
    """Look at an image as survey_image() does, and keep the root's tree open for more.

    ``full`` counts every program; ``progress`` is told how far reading a compressed image is.
    """
    image, packed, streamed = _open(path, label, progress)
    image.by_kernel = by_kernel
    try:
        refuse_foreign(image.pread(RECOGNISE_BYTES, 0), path)
        table = table_of(image)
        found = [_probe(image, p) for p in _partitions(table, image)]
        if streamed is not None:
            found = _without_what_is_missing(found, streamed)
        if partition is None:
            roots, found = find_roots(image, found, full=full)
        else:
            roots = [_named_root(image, found, partition, full=full)]
        root = roots[0] if len(roots) == 1 else None
        for other in roots if root is None else ():
            other.reader.close()
        survey = _describe(image, table, found, roots)
        return SurveyedImage(
            image, replace(survey, compression=packed), root.reader if root else None
        )
    except BaseException:
        image.close()
        raise


def require_root(survey: ImageSurvey) -> ImagePartition:
    """Return the root's partition.

    Raises AmbiguousRoot, which names the candidates; UnsupportedImage where it is in something
    that is not opened here; DamagedImage, NoSuchPartition.
    """
    for item in survey.partitions:
        if item.partition.number == survey.root:
            return item
    if survey.candidates:
        raise AmbiguousRoot(
            f"{survey.path} has a root filesystem in more than one partition: {several(survey)}",
            "choose one with --partition NUMBER or LABEL",
        )
    for item in survey.partitions:
        if item.problem:
            kind = UnsupportedImage if item.role in ("luks", "lvm", "unknown") else DamagedImage
            raise kind(
                f"{survey.path} has no root filesystem that can be used: "
                f"partition {item.partition.number}: {item.problem}",
                item.hint,
            )
    unknown = [str(p.partition.number) for p in survey.partitions if _is_blank(p)]
    raise NoSuchPartition(
        f"There is no root filesystem in {survey.path}",
        f"no file system is known in partition {' and '.join(unknown)}: "
        "empty, or with a damaged superblock"
        if unknown
        else "",
    )


def _is_blank(item: ImagePartition) -> bool:
    return item.filesystem is None and not item.partition.is_container


def several(survey: ImageSurvey) -> str:
    """Return the candidates for the root in words."""
    return " and ".join(
        describe(Found(p.partition, p.filesystem))
        for p in survey.partitions
        if p.partition.number in survey.candidates
    )


def _open(
    path: HostPath, label: str, progress: Progress | None
) -> tuple[ImageFile, str, Streamed | None]:
    """Return the image, or what was kept of a compressed one, and its compression."""
    with ImageFile(path) as file:
        is_device = not os.path.isfile(file.argument)
    packed = "" if is_device else compression(path)
    if not packed:
        return ImageFile(path, label=label), "", None
    streamed = stream_image(path, progress)
    try:
        kept = HostPath(f"/proc/self/fd/{streamed.fd}")
        return ImageFile(kept, label=path), packed, streamed
    finally:
        os.close(streamed.fd)


def _without_what_is_missing(found: list[Found], streamed: Streamed) -> list[Found]:
    return [
        replace(
            item,
            problem=f"there was no room in {streamed.directory} to look into it",
            hint="make room, or name a directory with more: TMPDIR=DIRECTORY xbuild inspect …",
        )
        if streamed.lacks(item.partition)
        else item
        for item in found
    ]


def _partitions(table: Table, image: ImageFile) -> tuple[Partition, ...]:
    return (
        table.partitions if table.kind != "none" else (Partition(WHOLE_IMAGE, 0, image.size, ""),)
    )


def _probe(image: ImageFile, partition: Partition) -> Found:
    if partition.is_container:
        return Found(partition, None)
    filesystem = filesystem_in(image, partition.offset, partition.size)
    return judge_partition(image, partition, filesystem)


def _named_root(image: ImageFile, found: list[Found], wanted: str, *, full: bool) -> Root:
    item = named_partition(image.label, found, wanted)
    require_usable(image.label, item)
    try:
        root = look_for_root(image, item, full=full)
    except ImageError as error:
        number = item.partition.number
        message = f"Cannot use partition {number} of {image.label}: {error.message}"
        raise type(error)(message, error.hint) from error
    if root is None:
        raise no_root_in(f"partition {item.partition.number} of {image.label}", item)
    return root


def _describe(image: ImageFile, table: Table, found: list[Found], roots: list[Root]) -> ImageSurvey:
    root = roots[0] if len(roots) == 1 else None
    mounts, notes = _read_fstab(root, found) if root is not None else ((), ())
    targets = {m.number: [o.target for o in mounts if o.number == m.number] for m in mounts}
    number = root.number if root is not None else None
    candidates = tuple(r.number for r in roots) if root is None else ()
    partitions = tuple(
        ImagePartition(
            f.partition,
            f.filesystem,
            role_of(
                table,
                f.partition,
                f.filesystem,
                root=number if f.partition.number not in candidates else f.partition.number,
                targets=targets.get(f.partition.number, ()),
            ),
            f.problem,
            f.hint,
        )
        for f in found
    )
    return ImageSurvey(
        path=HostPath(image.label),
        size=image.size,
        table=table,
        partitions=partitions,
        root=number,
        tree=root.tree if root is not None else None,
        mounts=tuple(m for m in mounts if m.target != "/"),
        root_options=next((m.options for m in mounts if m.target == "/"), ""),
        notes=(*_type_notes(partitions, root), *notes),
        candidates=candidates,
    )


def _read_fstab(root: Root, found: list[Found]) -> tuple[tuple[ImageMount, ...], tuple[str, ...]]:
    try:
        text = root.reader.read(FSTAB, FSTAB_LIMIT).decode("utf-8", "surrogateescape")
    except TargetNotFound:
        return (), ("it has no /etc/fstab: nothing says what is mounted where",)
    except TargetError as error:
        return (), (error.message,)
    usable = [(f.partition, f.filesystem) for f in found]
    return match_fstab(parse_fstab(text), usable, root.number)


def _type_notes(partitions: tuple[ImagePartition, ...], root: Root | None) -> tuple[str, ...]:
    for item in partitions:
        if root is not None and item.partition.number == root.number and root.tree.arch is not None:
            marked = ROOT_TYPES.get(item.partition.type)
            if marked is not None and marked != root.tree.arch.name:
                return (
                    f"the type of partition {root.number} says {arch_named(marked).common_name}, "
                    f"its programs are {root.tree.arch.common_name}",
                )
    return ()
