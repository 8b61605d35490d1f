"""Which partition has the root tree: by its GPT type, else by looking into each."""

from __future__ import annotations

from collections.abc import Sequence

from xbuild.errors import (
    ImageError,
    NoSuchPartition,
    NotARootfs,
    TargetError,
    UnknownArchitecture,
    UnsupportedImage,
)
from xbuild.image.file import ImageFile
from xbuild.image.filesystem import Filesystem, find_backup
from xbuild.image.nodes import NodeReader
from xbuild.image.opening import NATIVE, open_partition
from xbuild.image.roles import ROOT_TYPES, why_unopened
from xbuild.image.table import Partition
from xbuild.record import GuestPath, HostPath, Record, replace
from xbuild.tree.census import Census
from xbuild.tree.resolve import DirectoryReader, TreeReader
from xbuild.tree.survey import SAMPLE, Survey, describe_tree, survey_directory

# A root has one of these, where a separate /usr or a data partition has none.
_MARKS = ("etc", "init", "system")


class Found(Record):
    """A partition and what is in it; ``problem`` and ``hint`` say why it cannot be used, or ""."""

    partition: Partition
    filesystem: Filesystem | None
    problem: str = ""
    hint: str = ""


class Root(Record):
    """A partition with a root tree; ``reader`` is the caller's to close."""

    number: int
    reader: TreeReader
    tree: Survey


def judge_partition(image: ImageFile, partition: Partition, filesystem: Filesystem | None) -> Found:
    """Decide whether what blkid found in a partition can be used."""
    problem, hint = why_unopened(filesystem, image.label, partition.number)
    if filesystem is None:
        problem, hint = _why_nothing(image, partition)
    elif filesystem.size is not None and filesystem.size > partition.size:
        problem = (
            f"its file system says it has {filesystem.size} bytes, "
            f"but its partition has {partition.size}"
        )
        hint = "the image was cut or repartitioned: fetch or make it again"
    return Found(partition, filesystem, problem, hint)


def _why_nothing(image: ImageFile, partition: Partition) -> tuple[str, str]:
    backup = None if partition.is_container else find_backup(image, partition.offset)
    if backup is None:
        return "", ""
    block, size = backup
    return (
        f"the superblock of its file system is damaged; a backup is in block {block}",
        f"on a copy: e2fsck -b {block} -B {size} 'COPY?offset={partition.offset}'",
    )


def find_roots(
    image: ImageFile, found: Sequence[Found], *, full: bool
) -> tuple[list[Root], list[Found]]:
    """Return the partitions with root trees, and ``found`` with what went wrong in looking.

    Several are returned only where nothing tells which is meant.
    """
    roots, judged = [], []
    for item in found:
        root = None
        if _may_be_root(item):
            try:
                root = look_for_root(image, item, full=full)
            except (ImageError, TargetError, UnknownArchitecture) as error:
                item = replace(item, problem=error.message, hint=error.hint)
        judged.append(item)
        roots += [root] if root is not None else []
    types = {item.partition.number: item.partition.type for item in found}
    typed = [root for root in roots if _is_typed(types[root.number], root.tree)]
    for root in roots:
        if typed and root not in typed:
            root.reader.close()
    return typed or roots, judged


def look_for_root(image: ImageFile, item: Found, *, full: bool) -> Root | None:
    """Return the root tree of a partition, None where it has none. Raises as its reader does."""
    assert item.filesystem is not None
    reader = open_partition(image, item.partition, item.filesystem)
    try:
        if reader.present(GuestPath("/"), _MARKS):
            tree = survey_reader(reader, HostPath(image.label), full=full)
            return Root(item.partition.number, reader, tree)
    except NotARootfs:
        pass
    except BaseException:
        reader.close()
        raise
    reader.close()
    return None


def survey_reader(reader: TreeReader, target: HostPath, *, full: bool) -> Survey:
    """Survey the tree in an image. Raises NotARootfs, UnknownArchitecture, TargetError."""
    match reader:
        case DirectoryReader():
            tree = survey_directory(reader, full=full, sample=SAMPLE)
        case NodeReader():
            census = Census()
            for path, header in reader.every() if full else reader.sample(SAMPLE):
                census.add(header, path)
            census.is_complete = full
            root = reader.root
            tree = describe_tree(reader, census, "image", owner=root.uid, owner_gid=root.gid)
        case _:
            raise TypeError(f"no survey of {type(reader).__name__}")
    return replace(tree, target=target, kind="image")


def named_partition(label: str, found: Sequence[Found], wanted: str) -> Found:
    """Return the partition that a person named by number or label. Raises NoSuchPartition."""
    matches = [f for f in found if str(f.partition.number) == wanted]
    matches = matches or [f for f in found if wanted and wanted in _labels(f)]
    if len(matches) == 1:
        return matches[0]
    listed = ", ".join(describe(f) for f in found)
    if matches:
        numbers = " and ".join(str(f.partition.number) for f in matches)
        raise NoSuchPartition(
            f"Partitions {numbers} of {label} are both labelled {wanted}", "name one by its number"
        )
    raise NoSuchPartition(f"{label} has no partition {wanted}", f"it has {listed or 'none'}")


def require_usable(label: str, item: Found) -> None:
    """Refuse a named partition that can have no root. Raises UnsupportedImage, NoSuchPartition."""
    where = f"partition {item.partition.number} of {label}" if item.partition.number else label
    if item.problem:
        raise UnsupportedImage(f"Cannot use {where}: {item.problem}", item.hint)
    if not _may_be_root(item):
        raise no_root_in(where, item)


def no_root_in(where: str, item: Found) -> NoSuchPartition:
    """Return the error for a partition that was named and has no root tree."""
    kind = item.filesystem.type if item.filesystem else "no known file system"
    return NoSuchPartition(
        f"There is no root filesystem in {where} ({kind})",
        "xbuild inspect IMAGE says what is in its partitions; --partition N takes another",
    )


def describe(item: Found) -> str:
    """Return what tells a partition from the others: number, label, file system."""
    words = [*_labels(item), item.filesystem.type if item.filesystem else "no file system"]
    return f"{item.partition.number} ({', '.join(dict.fromkeys(words))})"


def _labels(item: Found) -> list[str]:
    label = item.filesystem.label if item.filesystem else ""
    return [text for text in (label, item.partition.name) if text]


def _may_be_root(item: Found) -> bool:
    return not item.problem and item.filesystem is not None and item.filesystem.type in NATIVE


def _is_typed(type_: str, tree: Survey) -> bool:
    return tree.arch is not None and ROOT_TYPES.get(type_) == tree.arch.name
