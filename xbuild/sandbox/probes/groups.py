"""Control groups: whether a group of one's own can be made (cgroups(7))."""

from __future__ import annotations

import os

from xbuild.plan.restrictions import Restriction
from xbuild.sandbox.mountinfo import read_mountinfo
from xbuild.sandbox.probes.finding import Circumstances, Finding, find_out

CHECK = "cgroup delegation"


def probe_cgroup(_circumstances: Circumstances) -> Finding:
    """Make a control group below one's own, and remove it."""
    mounts = [row for row in read_mountinfo() if row.filesystem == "cgroup2"]
    own = _own_group()
    if not mounts or own is None:
        has_v1 = any(row.filesystem == "cgroup" for row in read_mountinfo())
        detail = "only version 1 is mounted" if has_v1 else "no cgroup2 is mounted"
        fix = "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 on /sys/fs/cgroup"
        return Finding(CHECK, "missing", f"{detail}; running a tree needs none", fix)
    point = mounts[0].point
    group = os.path.normpath(f"{point}/{os.path.relpath(own, mounts[0].root)}")

    def act() -> str:
        new = f"{group}/xbuild-doctor-{os.getpid()}"
        os.mkdir(new)
        try:
            with open(f"{new}/cgroup.controllers", encoding="ascii") as file:
                controllers = file.read().split()
        finally:
            os.rmdir(new)
        return f"{group}: {', '.join(controllers) or 'no controllers'}"

    return find_out(CHECK, act, _why_not_delegated)


def _own_group() -> str | None:
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        rows = [line.rstrip("\n").split(":", 2) for line in file]
    return next((path for number, _, path in rows if number == "0"), None)


def _why_not_delegated(number: int) -> Restriction:
    del number
    if os.geteuid() == 0:
        return Restriction(
            "the outer container shows it read-only; running a tree needs none",
            "start the outer container with --cgroupns private and a writable /sys/fs/cgroup",
        )
    return Restriction(
        "this control group is not delegated to you; running a tree needs none",
        "systemd-run --user --scope -p Delegate=yes xbuild run …",
    )
