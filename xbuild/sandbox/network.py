"""The network namespace of a container: bringing up its loopback device (netdevice(7))."""

from __future__ import annotations

import os
from _struct import pack

from xbuild.sandbox import _linux

_IFNAME = b"lo"


def loopback_up() -> None:
    """Set IFF_UP on ``lo`` of the current network namespace. Raises OSError."""
    fd = _linux.socket(_linux.AF_INET, _linux.SOCK_DGRAM)
    try:
        request = pack("16sH22x", _IFNAME, _linux.IFF_UP)
        _linux.ioctl(fd, _linux.SIOCSIFFLAGS, request)
    finally:
        os.close(fd)
