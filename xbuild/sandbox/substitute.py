"""The table of native programs, as the code before qemu's entry point reads it.

The format is ``struct table`` of toolset/dispatch/dispatch.c: a header, entries of fixed size, then
texts that end with a zero byte, referred to by their distance from the beginning.
"""

from __future__ import annotations

import errno
import os
import struct

from xbuild.sandbox.stage import Stage, make_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.steps import Substitute
    from xbuild.plan.substitution import Substitution

_MAGIC = b"xbtable1"
_HEADER = "=8sII"  # magic, number of entries, spare
_ENTRY = "=QQqqIIIIIIIIII"
_SECOND_NS = 1_000_000_000


def write_table(stage: Stage, step: Substitute) -> None:
    """Look at each program in the view, and write the table of those that are as planned.

    Others are emulated, as is what changes later. Raises OSError, with ESTALE if none is left.
    """
    found = [(each, status) for each in step.substitutions if (status := _look(stage, each))]
    if not found:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), step.table)
    parent, name = stage.open_parent(step.table)
    try:
        make_file(parent, name, table(found), step.owner)
    finally:
        os.close(parent)


def _look(stage: Stage, wanted: Substitution) -> os.stat_result | None:
    try:
        fd = stage.open_target(wanted.path)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    planned = (wanted.size, wanted.mtime_ns, wanted.ctime_ns)
    is_same = (status.st_size, status.st_mtime_ns, status.st_ctime_ns) == planned
    return status if is_same else None


def table(found: list[tuple[Substitution, os.stat_result]]) -> bytes:
    """Return the table for programs with the status that the view shows."""
    texts = bytearray()
    start = struct.calcsize(_HEADER) + len(found) * struct.calcsize(_ENTRY)

    def place(*words: str) -> int:
        """Append texts, and return where the first one is; 0 for none."""
        at = start + len(texts)
        for word in words:
            texts.extend(os.fsencode(word) + b"\0")
        return at if words else 0

    entries = []
    for wanted, status in found:
        exceptions = (*wanted.emulate_for, "") if wanted.emulate_for else ()
        entries.append(
            struct.pack(
                _ENTRY,
                status.st_ino,
                status.st_size,
                status.st_mtime_ns // _SECOND_NS,
                status.st_ctime_ns // _SECOND_NS,
                status.st_mtime_ns % _SECOND_NS,
                status.st_ctime_ns % _SECOND_NS,
                os.major(status.st_dev),
                os.minor(status.st_dev),
                place(wanted.native),
                place(*wanted.arguments[:1]),
                place(*wanted.arguments[1:2]),
                place(*exceptions),
                int(wanted.drops_preload),
                int(wanted.wants_plain_locale),
            )
        )
    return struct.pack(_HEADER, _MAGIC, len(found), 0) + b"".join(entries) + bytes(texts)
