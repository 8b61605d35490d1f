"""System calls about whose files a process makes: see ``_linux``, whose rules hold here too."""

from __future__ import annotations

import _ctypes
import struct

from xbuild.sandbox import _linux

# linux/capability.h
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_HEADER = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)  # of the calling thread
_DATA = (
    "=IIIIII"  # effective, permitted, inheritable: of the first 32 capabilities, and of the rest
)


def set_filesystem_ids(uid: int, gid: int) -> None:
    """Let what this thread makes belong to these numbers (setfsuid(2)), all its rights kept.

    Raises OSError where the capabilities that this takes away cannot be had back (capset(2)).
    """
    _linux.libc_function("setfsgid", 1)(gid)
    _linux.libc_function("setfsuid", 1)(uid)
    held = _linux.cells(struct.calcsize(_DATA))
    capget, capset = (_linux.libc_function(name, 2) for name in ("capget", "capset"))
    _linux.checked(capget(_HEADER, _ctypes.addressof(held)), "capget")
    _, low, low_inheritable, _, high, high_inheritable = struct.unpack(_DATA, bytes(held))
    wanted = struct.pack(_DATA, low, low, low_inheritable, high, high, high_inheritable)
    _linux.checked(capset(_HEADER, wanted), "capset")
