"""Partition tables, read by sfdisk(8) and blkid(8) and checked: what they print is untrusted.

Sizes and offsets are in bytes. Nothing is known here of what partitions hold.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Literal

from xbuild.errors import DamagedImage, ImageError
from xbuild.image.file import ImageFile
from xbuild.image.program import run_program
from xbuild.record import HostPath, Record

TableKind = Literal["gpt", "mbr", "none"]

FIRST_LOGICAL = 5  # MBR: 1 to 4 are in the first sector, the others chained in an extended one
EXTENDED = ("5", "f", "85")  # MBR types of a partition that only holds others
PROTECTIVE = "ee"  # MBR type that covers a disk with a GPT
_GPT_HEADER = struct.Struct("<8s24xQ")  # UEFI specification 5.3.2: signature, AlternateLBA


class Partition(Record):
    """One partition. ``number`` is the kernel's, from 1, and may leave gaps.

    ``type`` is the GPT type GUID in lower case or the MBR type in hexadecimal without zeros in
    front; ``name`` is GPT's (untrusted text, "" in MBR); ``partuuid`` is as the kernel has it.
    """

    number: int
    offset: int
    size: int
    type: str
    name: str = ""
    partuuid: str = ""
    bootable: bool = False

    @property
    def end(self) -> int:
        """Return the offset of the first byte behind it."""
        return self.offset + self.size

    @property
    def is_container(self) -> bool:
        """Tell whether this is an extended partition of an MBR, which has no content of its own."""
        return self.type in EXTENDED


class Table(Record):
    """A partition table; ``kind`` "none" is an image that is one file system, or unknown data.

    ``disk_id`` is the GPT's GUID in lower case, or the MBR's eight hexadecimal digits.
    """

    kind: TableKind
    disk_id: str = ""
    sector_size: int = 512
    partitions: tuple[Partition, ...] = ()


def read_table(path: HostPath) -> Table:
    """Read and check the partition table of an image or a disk.

    Raises DamagedImage for an image shorter than its table says, for partitions that overlap and
    for logical partitions that lead back to one another; ImageError, TargetError, ImageToolMissing.
    """
    with ImageFile(path) as image:
        return table_of(image)


def table_of(image: ImageFile) -> Table:
    """Read and check the partition table of an open image: see read_table()."""
    signature = probe_signature(image)
    if signature.get("TYPE") == "iso9660" or not _may_have_table(image, signature):
        return Table("none")
    table = _parse(image, _sfdisk(image))
    if not table.partitions and "TYPE" in signature:
        return Table("none")  # boot code of a file system ends like an MBR
    check_table(table, image.size, image.label)
    return table


def probe_signature(image: ImageFile, offset: int = 0, size: int | None = None) -> dict[str, str]:
    """Return blkid's low-level findings (TYPE, LABEL, UUID, PTTYPE, …) in a range of an image.

    Raises DamagedImage where the range looks like several things at once.
    """
    span = (image.size if size is None else size) or 0
    output = run_program(
        "blkid",
        ["-p", "-o", "export", "-O", str(offset), "-S", str(span), image.argument],
        image=image,
        purpose=f"look into {image.label}",
    )
    if output.status == 8:
        raise DamagedImage(
            f"{image.label} has the signatures of several file systems at byte {offset}",
            "list them with wipefs, and remove the wrong one",
        )
    lines = output.stdout.decode("utf-8", "surrogateescape").splitlines()
    pairs = (line.partition("=") for line in lines)
    return {key: _unescaped(value) for key, equals, value in pairs if equals}


def _unescaped(value: str) -> str:
    r"""Undo blkid's backslashes before characters special to a shell."""
    plain, characters = [], iter(value)
    for character in characters:
        plain.append(next(characters, "") if character == "\\" else character)
    return "".join(plain)


def _may_have_table(image: ImageFile, signature: dict[str, str]) -> bool:
    if signature.get("PTTYPE") == "PMBR" or _gpt_header(image, 512) is not None:
        _refuse_damaged_gpt(image, signature)
        return True
    if _gpt_header(image, 4096) is not None:
        raise ImageError(
            f"{image.label} has a partition table for sectors of 4096 bytes, not of 512",
            "it is an image of a disk with such sectors, and serves on one only",
        )
    return signature.get("PTTYPE") in ("gpt", "dos")


def _gpt_header(image: ImageFile, offset: int) -> int | None:
    """Return the sector in which a GPT says that its backup is, None where there is no GPT."""
    header = image.pread(_GPT_HEADER.size, offset)
    if len(header) < _GPT_HEADER.size or not header.startswith(b"EFI PART"):
        return None
    alternate: int = _GPT_HEADER.unpack(header)[1]
    return alternate


def _refuse_damaged_gpt(image: ImageFile, signature: dict[str, str]) -> None:
    backup = _gpt_header(image, 512)
    if backup is not None and (backup + 1) * 512 > image.size:
        raise cut_off(image.label, image.size, (backup + 1) * 512)
    if signature.get("PTTYPE") == "PMBR":
        raise DamagedImage(
            f"The GPT of {image.label} is damaged",
            f"sgdisk --verify {image.label} says how; gdisk can rebuild it from its backup",
        )


def cut_off(label: str, size: int, wanted: int) -> DamagedImage:
    """Return the error for an image that is shorter than its own table says; sizes in bytes."""
    return DamagedImage(
        f"{label} is cut off: it has {size} bytes, its partition table speaks of {wanted}",
        "fetch or copy it again; the partitions are not usable as they are",
    )


def _sfdisk(image: ImageFile) -> dict[str, Any]:  # Any: JSON
    output = run_program(
        "sfdisk",
        ["--json", image.argument],
        image=image,
        purpose=f"read the partition table of {image.label}",
    )
    try:
        found: dict[str, Any] = json.loads(output.stdout.decode("utf-8", "replace"))
        table: dict[str, Any] = found["partitiontable"]
    except (ValueError, KeyError, TypeError) as error:
        reason = output.stderr.strip().partition("\n")[0]
        raise DamagedImage(
            f"Cannot read the partition table of {image.label}: {reason or 'sfdisk says nothing'}"
        ) from error
    return table


def _parse(image: ImageFile, found: dict[str, Any]) -> Table:  # Any: JSON
    label = str(found.get("label"))
    sector = int(found.get("sectorsize", 512))
    if label not in ("gpt", "dos") or found.get("unit") != "sectors" or sector < 1:
        raise ImageError(
            f"{image.label} has a partition table of the unknown kind {label}",
            "GPT and MBR are known: attach others yourself, mount them, and name the directory",
        )
    is_gpt = label == "gpt"
    disk_id = str(found.get("id", "")).lower().removeprefix("0x")
    partitions = tuple(_partition(entry, sector, disk_id) for entry in found.get("partitions", ()))
    if not is_gpt and any(p.type == PROTECTIVE for p in partitions):
        raise DamagedImage(f"The GPT of {image.label} is damaged or missing, only its mark is left")
    return Table("gpt" if is_gpt else "mbr", disk_id, sector, partitions)


def _partition(entry: dict[str, Any], sector: int, disk_id: str) -> Partition:  # Any: JSON
    number = int(str(entry["node"]).rpartition("p")[2])
    uuid = str(entry.get("uuid", "")).lower()
    return Partition(
        number=number,
        offset=int(entry["start"]) * sector,
        size=int(entry["size"]) * sector,
        type=str(entry["type"]).lower(),
        name=str(entry.get("name", "")),
        partuuid=uuid or f"{disk_id}-{number:02x}",
        bootable=bool(entry.get("bootable", False)) or "LegacyBIOSBootable" in _attributes(entry),
    )


def _attributes(entry: dict[str, Any]) -> str:  # Any: JSON
    return str(entry.get("attrs", ""))


def check_table(table: Table, image_size: int, label: str) -> None:
    """Refuse a table that contradicts itself or the image's size in bytes. Raises DamagedImage."""
    logical = [p for p in table.partitions if table.kind == "mbr" and p.number >= FIRST_LOGICAL]
    _refuse_cycle(logical, label)
    end = max((p.end for p in table.partitions), default=0)
    if end > image_size:
        raise cut_off(label, image_size, end)
    _refuse_overlap([p for p in table.partitions if p not in logical], label)
    _refuse_overlap([p for p in table.partitions if not p.is_container], label)


def _refuse_cycle(logical: list[Partition], label: str) -> None:
    seen: dict[int, int] = {}
    for partition in logical:
        first = seen.setdefault(partition.offset, partition.number)
        if first != partition.number:
            raise DamagedImage(
                f"The logical partitions of {label} lead back to one another: "
                f"{partition.number} is {first} again",
                "the chain of its extended partition is damaged; sfdisk can write it anew",
            )


def _refuse_overlap(partitions: list[Partition], label: str) -> None:
    before: Partition | None = None
    for partition in sorted(partitions, key=lambda p: (p.offset, p.number)):
        if before is not None and partition.offset < before.end:
            raise DamagedImage(
                f"Partitions {before.number} and {partition.number} of {label} overlap",
                "writing to either would destroy the other: correct the table with sfdisk first",
            )
        before = partition if before is None or partition.end > before.end else before
