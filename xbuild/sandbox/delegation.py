"""The control group that a booted guest has for its own: entered, given away, left again.

The launcher has made it (``cgroups``). A group whose processes are in groups below it may have none
itself, in the end (cgroups(7), no internal processes): xbuild's own are in one beside the guest's.
Off the start path: loaded for an init that wants control groups.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xbuild.sandbox import _linux, mounts
from xbuild.sandbox.cgroups import GUESTS, OURS

if TYPE_CHECKING:
    from xbuild.plan.limits import MountCgroup, RootCgroups
    from xbuild.sandbox.stage import Stage

_DELEGATED = "/sys/kernel/cgroup/delegate"  # the files that whoever has a group may write
_ALWAYS = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")


def root_cgroups(stage: Stage, step: RootCgroups) -> None:
    """Move this process to the guest's group, and begin a cgroup namespace there."""
    group = f"{stage.group}/{GUESTS}"
    owner = step.owner
    for name in ("", *_delegated_files()):
        path = f"{group}/{name}"
        if os.path.exists(path):
            os.chown(path, owner.uid, owner.gid)
    # Opened now: who may move is judged by the namespace of who opened it.
    stage.way_back = os.open(f"{stage.group}/{OURS}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    fd = os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)
    _linux.unshare(_linux.CLONE_NEWCGROUP)


def go_back(stage: Stage) -> None:
    """Leave the guest's group to the process that becomes the command."""
    os.write(stage.way_back, b"0")
    os.close(stage.way_back)
    stage.way_back = -1


def mount_cgroup(stage: Stage, step: MountCgroup) -> None:
    """Mount the guest's group, and what it makes below it."""
    mounts.attach(stage, mounts.new_mount("cgroup2", (), mounts.PLAIN_DATA), step.target)


def _delegated_files() -> tuple[str, ...]:
    try:
        with open(_DELEGATED, encoding="ascii") as file:
            return tuple(file.read().split())
    except OSError:
        return _ALWAYS
