"""Giving the last partition of a table another end, every identifier kept.

sfdisk(8) prints a table as a script and makes one from a script; in between only the sizes change.
A table is made anew rather than edited: libfdisk does not believe a GPT whose backup would be
behind the end of a file that was cut.
"""

from __future__ import annotations

import os
import re

from xbuild.errors import DamagedImage, ImageError
from xbuild.image.file import ImageFile, open_no_link
from xbuild.image.program import run_program
from xbuild.image.running import run_unhurried
from xbuild.image.table import FIRST_LOGICAL, Partition, Table, read_table
from xbuild.record import HostPath, replace

_BOOT_CODE = 440  # bytes before the MBR's disk identifier, which sfdisk leaves to their owner
_MBR_ENTRIES = 446
_ENTRY = re.compile(r"^.*\D(\d+) : (start=.*)$")
_SIZE = re.compile(r"size=\s*\d+")
# What sfdisk finds out by itself from the file, and must not believe of the old one.
_STALE = ("device:", "last-lba:")
_GPT_BACKUP_SECTORS = 33  # UEFI specification 5.3: 32 of entries, one of the header
_PROTECTIVE = (0x00, 0xEE)


def last_partition(table: Table) -> Partition | None:
    """Return the partition that ends last, containers of logical ones aside."""
    real = [p for p in table.partitions if not p.is_container]
    return max(real, key=lambda p: p.end, default=None)


def tail_length(table: Table) -> int:
    """Return how many bytes a disk needs behind its last partition."""
    return _GPT_BACKUP_SECTORS * table.sector_size if table.kind == "gpt" else 0


def resized(table: Table, last: Partition, size: int) -> Table:
    """Return the table with ``last`` of another size in bytes, its container ending with it."""

    def adapt(partition: Partition) -> Partition:
        if partition.number == last.number:
            return replace(partition, size=size)
        if partition.is_container and last.number >= FIRST_LOGICAL:
            return replace(partition, size=last.offset + size - partition.offset)
        return partition

    return replace(table, partitions=tuple(adapt(p) for p in table.partitions))


def dump_script(image: ImageFile, table: Table) -> str:
    """Return sfdisk's script of the table as it is. Raises ImageError for a hybrid MBR."""
    entries = image.pread(64, _MBR_ENTRIES)
    if table.kind == "gpt" and any(kind not in _PROTECTIVE for kind in entries[4::16]):
        raise ImageError(
            f"{image.label} has a hybrid MBR beside its GPT, which sfdisk would not keep",
            "resize it with gdisk, which knows of both",
        )
    output = run_program(
        "sfdisk",
        ["--dump", image.argument],
        image=image,
        purpose=f"read the partition table of {image.label}",
    )
    if output.status:
        raise DamagedImage(f"sfdisk cannot read the partition table of {image.label}")
    return output.stdout.decode("utf-8", "surrogateescape")


def edit_script(script: str, wanted: Table) -> str:
    """Return a script of sfdisk with the sizes of ``wanted``."""
    sizes = {p.number: p.size // wanted.sector_size for p in wanted.partitions}
    lines = []
    for line in script.splitlines():
        entry = _ENTRY.match(line)
        if entry is None:
            lines += [] if line.startswith(_STALE) else [line]
            continue
        fields = _SIZE.sub(f"size={sizes[int(entry[1])]}", entry[2], count=1)
        lines.append(f"{entry[1]} : {fields}")
    return "\n".join(lines) + "\n"


def write_table(path: HostPath, script: str, wanted: Table, *, label: str) -> None:
    """Write the table of ``script`` into a file of the final size, keeping its boot code.

    Raises ImageError unless the table is then ``wanted`` in every identifier and size.
    """
    arguments = ["--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never"]
    arguments += ["--wipe-partitions", "never"]
    purpose = f"write the partition table of {label}"
    with open(path, "r+b", opener=open_no_link) as file:
        boot_code = file.read(_BOOT_CODE)
        status, text = run_unhurried(
            file.fileno(),
            "sfdisk",
            [*arguments, f"/proc/self/fd/{file.fileno()}"],
            purpose=purpose,
            label=label,
            commands=script.encode("utf-8", "surrogateescape"),
        )
        if status:
            raise ImageError(
                f"Cannot {purpose}: {text.strip() or 'sfdisk failed'}",
                "the image is as it was; sfdisk --dump shows its table",
            )
        os.pwrite(file.fileno(), boot_code, 0)
    if read_table(path) != wanted:
        raise ImageError(
            f"Cannot {purpose}: sfdisk wrote another one than it was given",
            "the file system is whole; sfdisk --dump shows the table, to be put right by hand",
        )
