"""The network namespace of a container, from inside (netdevice(7))."""

from __future__ import annotations

import os
from _struct import pack

from xbuild.errors import EXIT_FAILED
from xbuild.sandbox import _linux

_IFNAME = b"lo"


def ask_launcher(line: int) -> None:
    """Have the launcher connect the current network namespace, and wait for that.

    It finds the namespace in /proc by this process, which must be dumpable for that. Where the
    launcher cannot it ends the run itself.
    """
    _linux.prctl(_linux.PR_SET_DUMPABLE, 1)
    os.write(line, b"\0")
    if os.read(line, 1) == b"":
        os._exit(EXIT_FAILED)


def loopback_up() -> None:
    """Set IFF_UP on ``lo`` of the current network namespace. Raises OSError."""
    fd = _linux.socket(_linux.AF_INET, _linux.SOCK_DGRAM)
    try:
        request = pack("16sH22x", _IFNAME, _linux.IFF_UP)
        _linux.ioctl(fd, _linux.SIOCSIFFLAGS, request)
    finally:
        os.close(fd)
