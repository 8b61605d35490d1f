"""Whether an XFS was unmounted cleanly: only its journal tells, and xfs_logprint(8) reads that.

It takes no offset, so the superblock and the journal are copied to a file without a name.
"""

from __future__ import annotations

import os
import re
import struct
import tempfile

from xbuild.errors import DamagedImage
from xbuild.image.extents import copy_extents, data_extents
from xbuild.image.file import ImageFile
from xbuild.image.program import find_program, run_program

# fs/xfs/libxfs/xfs_format.h: struct xfs_dsb; blocksize, logstart, agblocks, logblocks, agblklog
_FIELDS = ((4, ">I"), (48, ">Q"), (84, ">I"), (96, ">I"), (124, ">B"))
_SUPERBLOCK = 64 << 10  # bytes; no sector is larger
_LIMIT = 512 << 20  # bytes of journal that are looked into
_STATE = re.compile(rb"state: <(CLEAN|DIRTY)>")


def has_dirty_log(image: ImageFile, offset: int) -> bool | None:
    """Tell whether the XFS at ``offset`` has changes in its journal alone, None if unknown."""
    header = image.pread(512, offset)
    if find_program("xfs_logprint") is None or len(header) < 512:
        return None
    block, start, group, count, shift = (struct.unpack_from(f, header, at)[0] for at, f in _FIELDS)
    length = count * block
    if start == 0 or not 0 < length <= _LIMIT or shift > 32:  # 0: on a device of its own
        return None
    number, within = start >> shift, start & ((1 << shift) - 1)
    place = (number * group + within) * block
    with tempfile.TemporaryFile() as file:
        for at, size in ((0, _SUPERBLOCK), (place, length)):
            if offset + at + size > image.size:
                return None
            extents = data_extents(image.fd, offset + at, offset + at + size)
            copy_extents(image.fd, file.fileno(), extents, shift=-offset)
        os.ftruncate(file.fileno(), place + length)
        os.fchmod(file.fileno(), 0o606)  # xfs_logprint opens it for writing, in a cell as nobody
        try:
            output = run_program(
                "xfs_logprint",
                ["-t", f"/proc/self/fd/{file.fileno()}"],
                image=image,
                purpose=f"look into {image.label}",
                descriptors=(file.fileno(),),
            )
        except DamagedImage:
            return True  # it prints every change that is left, and here without end
    match = _STATE.search(output.stdout)
    return match[1] == b"DIRTY" if match else None
