"""What ``xbuild inspect IMAGE`` prints: text for people, JSON of schema xbuild.inspect-image/1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xbuild.cli.inspecting import inspect_tree
from xbuild.cli.inspection import as_document as tree_document
from xbuild.cli.inspection import fact_rows, laid_out, spoken_facts
from xbuild.cli.output import visible
from xbuild.cli.unpacking import shown_unpacking
from xbuild.errors import ImageError
from xbuild.image.filesystem import READ_ONLY
from xbuild.image.survey import ImagePartition, ImageSurvey, open_survey, require_root, several

if TYPE_CHECKING:
    from xbuild.cli.inspecting import Inspection
    from xbuild.image.filesystem import Filesystem
    from xbuild.record import HostPath

    Document = dict[str, object]

SCHEMA = "xbuild.inspect-image/1"

_TABLES = {"gpt": "GPT", "mbr": "MBR", "none": "no partition table"}
_HEADER = ("", "role", "at", "size", "file system", "label", "free", "mounted at")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@dataclass(frozen=True, slots=True)
class ImageInspection:
    """An image, and how this host runs its root's tree; None where there is no such tree."""

    survey: ImageSurvey
    inspection: Inspection | None


def inspect_image(
    path: HostPath, *, partition: str | None = None, full: bool = False
) -> ImageInspection:
    """Look at an image and at what this host has for it. Raises as open_survey() does."""
    with (
        shown_unpacking(f"reading {path} to look into it", "reading") as progress,
        open_survey(path, partition=partition, full=full, progress=progress) as surveyed,
    ):
        tree, reader = surveyed.survey.tree, surveyed.reader
        inspection = None if tree is None or reader is None else inspect_tree(reader, tree)
        return ImageInspection(surveyed.survey, inspection)


def as_text(image: ImageInspection) -> str:
    """Return the first line, the partitions, and a row for each fact of the root's tree."""
    survey = image.survey
    lines = [visible(_headline(image)), "", *_partition_lines(survey)]
    rows = [] if image.inspection is None else fact_rows(image.inspection)[1:]
    rows += _root_rows(survey)
    rows += [("dirty", _dirty(p)) for p in survey.partitions if _is_dirty(p.filesystem)]
    for item in survey.partitions:
        if item.problem:
            rows += [(f"partition {item.partition.number}", item.problem), ("hint", item.hint)]
    rows += [("note", text) for text in survey.notes]
    shown = laid_out(rows)
    return "\n".join([*lines, "", *shown] if shown else lines)


def _headline(image: ImageInspection) -> str:
    survey = image.survey
    count = len(survey.partitions)
    parts = [f"image of {size_text(survey.size)}", _TABLES[survey.table.kind]]
    if survey.compression:
        parts[0] += f" in {survey.compression}"
    if survey.table.kind != "none":
        parts.append(f"{count} partition{'s' * (count != 1)}")
    if image.inspection is not None:
        where = f"root in {survey.root}: " if survey.root else ""
        parts.append(where + spoken_facts(image.inspection))
    return f"{survey.path}: {', '.join(parts)}"


def _partition_lines(survey: ImageSurvey) -> list[str]:
    rows = [_HEADER, *(_columns(survey, item) for item in survey.partitions)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _columns(survey: ImageSurvey, item: ImagePartition) -> tuple[str, ...]:
    partition, filesystem = item.partition, item.filesystem
    kind = "extended" if partition.is_container else filesystem.type if filesystem else "none"
    label = (filesystem.label if filesystem else "") or partition.name
    return (
        str(partition.number) if partition.number else "",
        "" if partition.is_container else item.role,
        size_text(partition.offset),
        size_text(partition.size),
        visible(kind),
        visible(label),
        _free(filesystem),
        visible(", ".join(_targets(survey, partition.number))),
    )


def _free(filesystem: Filesystem | None) -> str:
    if filesystem is None or filesystem.free is None:
        return ""
    return "read-only" if filesystem.type in READ_ONLY else size_text(filesystem.free)


def _targets(survey: ImageSurvey, number: int) -> list[str]:
    mounted = [mount.target for mount in survey.mounts if mount.number == number]
    return ["/", *mounted] if number == survey.root else list(mounted)


def _root_rows(survey: ImageSurvey) -> list[tuple[str, str]]:
    """Return why there is no tree, and what to do."""
    if survey.candidates:
        return [
            ("root", f"more than one partition could be it: {several(survey)}"),
            ("hint", "choose one with --partition NUMBER or LABEL"),
        ]
    if survey.root is None and any(item.problem for item in survey.partitions):
        return [("root", "none that can be used")]
    if survey.root is None:
        try:
            require_root(survey)
        except ImageError as error:
            return [("root", error.message), ("hint", error.hint)]
    return []


def _is_dirty(filesystem: Filesystem | None) -> bool:
    return filesystem is not None and filesystem.is_dirty is True


def _dirty(item: ImagePartition) -> str:
    kind = item.filesystem.type if item.filesystem else "file system"
    where = f"partition {item.partition.number}" if item.partition.number else "it"
    return f"{where} was not unmounted cleanly ({kind})"


def size_text(size: int) -> str:
    """Return a size in bytes for people, in binary units."""
    number, unit = float(size), 0
    while number >= 1024 and unit + 1 < len(_UNITS):
        number, unit = number / 1024, unit + 1
    return f"{number:.1f} {_UNITS[unit]}" if unit else f"{size} bytes"


def as_document(image: ImageInspection) -> Document:
    """Return the JSON document of docs/json.md: every key is always there, null where unknown."""
    survey = image.survey
    return {
        "schema": SCHEMA,
        "target": survey.path,
        "compression": survey.compression or None,
        "size": survey.size,
        "table": {
            "kind": survey.table.kind,
            "id": survey.table.disk_id or None,
            "sector_size": survey.table.sector_size,
        },
        "partitions": [_partition_document(item) for item in survey.partitions],
        "root": survey.root,
        "root_candidates": list(survey.candidates),
        "root_options": survey.root_options or None,
        "mounts": [
            {"partition": mount.number, "target": mount.target, "options": mount.options}
            for mount in survey.mounts
        ],
        "notes": list(survey.notes),
        "tree": None if image.inspection is None else tree_document(image.inspection),
    }


def _partition_document(item: ImagePartition) -> Document:
    partition = item.partition
    return {
        "number": partition.number,
        "offset": partition.offset,
        "size": partition.size,
        "type": partition.type or None,
        "name": partition.name or None,
        "partuuid": partition.partuuid or None,
        "bootable": partition.bootable,
        "role": item.role,
        "filesystem": _filesystem_document(item.filesystem),
        "problem": item.problem or None,
        "hint": item.hint or None,
    }


def _filesystem_document(filesystem: Filesystem | None) -> Document | None:
    if filesystem is None:
        return None
    return {
        "type": filesystem.type,
        "label": filesystem.label or None,
        "uuid": filesystem.uuid or None,
        "size": filesystem.size,
        "free": filesystem.free,
        "dirty": filesystem.is_dirty,
    }
