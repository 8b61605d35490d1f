"""File systems served by programs: how an ordinary user works in an image."""

from __future__ import annotations

import os
import shutil

from xbuild.emulation.packages import package_command
from xbuild.plan.restrictions import FUSE_DEVICE, why_no_fuse
from xbuild.sandbox import _linux
from xbuild.sandbox.probes.finding import (
    Circumstances,
    Finding,
    enter_user_namespace,
    find_out,
)

_PROGRAMS = ("fuse2fs", "squashfuse")
_OPTIONS = (("rootmode", "40000"), ("user_id", "0"), ("group_id", "0"))


def probe_fuse(circumstances: Circumstances) -> Finding:
    """Make a FUSE mount that nobody serves, attached nowhere, in a user namespace."""
    check = "FUSE"
    if circumstances.host.privileged:
        return Finding(check, "n/a", "images are attached to loop devices, which needs no FUSE")
    found = find_out(check, _mount_nothing, why_no_fuse)
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if found.state == "ok" and missing:
        fix = "\n".join(package_command(name) for name in missing)
        return Finding(check, "missing", f"{' and '.join(missing)}: not installed", fix)
    return found


def _mount_nothing() -> str:
    enter_user_namespace(_linux.CLONE_NEWNS)
    device = os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    context = _linux.fsopen("fuse")
    _linux.fsconfig_string(context, "source", "xbuild")
    for key, value in (("fd", str(device)), *_OPTIONS):
        _linux.fsconfig_string(context, key, value)
    _linux.fsconfig_create(context, label="fuse")
    os.close(_linux.fsmount(context, 0, label="fuse"))
    return f"images of ext file systems and squashfs by {' and '.join(_PROGRAMS)}"
