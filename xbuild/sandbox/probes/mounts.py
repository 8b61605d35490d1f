"""Overlays, idmapped mounts and loop devices."""

from __future__ import annotations

import errno
import os
import stat
import tempfile

from xbuild.plan.identities import SHIFTED_BASE, SHIFTED_COUNT
from xbuild.plan.restrictions import Restriction, why_no_user_namespace
from xbuild.plan.steps import IdMap, IdRange, MountOverlay, MountTree, Plan
from xbuild.record import HostPath
from xbuild.sandbox import _linux
from xbuild.sandbox.loop import LOOP_CONTROL, attach_loop, remove_loop
from xbuild.sandbox.mounts import copy_tree, mount_overlay, new_mount
from xbuild.sandbox.namespaces import open_user_namespaces
from xbuild.sandbox.probes.finding import (
    Circumstances,
    Finding,
    enter_private_mounts,
    enter_user_namespace,
    find_out,
)
from xbuild.sandbox.stage import Stage

_IMAGE_BYTES = 1 << 20
_PROBE_FILE = "xbuild-doctor"
_HARMLESS_LOWER = HostPath("/usr")


def probe_overlay(circumstances: Circumstances) -> Finding:
    """Mount an overlay of the place in a user namespace, and write to it."""
    host, lower = circumstances.host, circumstances.place
    has_mounts = bool(host.mounts_below(lower))
    if has_mounts and (host.privileged or not circumstances.is_target):
        lower, has_mounts = _HARMLESS_LOWER, False  # that hinders ordinary users only

    def act() -> str:
        enter_user_namespace(_linux.CLONE_NEWNS)
        stage = Stage({})
        stage.has_own_mounts = True
        # What is mounted below may not be left out by an ordinary user: mount_namespaces(7).
        mount_overlay(stage, MountOverlay(lower, recursive=True, in_user_namespace=True))
        os.close(os.open(_PROBE_FILE, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=stage.view))
        return f"in a user namespace, over {host.filesystem_of(lower)} ({lower})"

    return find_out("overlay", act, _why_not_below_mounts if has_mounts else _why_no_overlay)


def _why_not_below_mounts(number: int) -> Restriction:
    if number != errno.EINVAL:
        return _why_no_overlay(number)
    return Restriction(
        "file systems are mounted below it, which a user's overlay may not leave out",
        "unmount them, or run with --ephemeral as root",
    )


def _why_no_overlay(number: int) -> Restriction:
    if number == errno.ENODEV:
        return Restriction("this kernel has no overlayfs", "as root: modprobe overlay")
    if number == errno.EACCES:
        return Restriction("you may not look into it", "run xbuild as the owner of the directory")
    if number == errno.EINVAL:
        return Restriction(
            "this file system cannot be the lower layer, or this kernel has no userxattr (5.11)",
            "for --ephemeral keep the tree on ext4, xfs, btrfs or tmpfs",
        )
    return why_no_user_namespace(number)


def probe_idmapped_mount(circumstances: Circumstances) -> Finding:
    """Show the place, and a tmpfs, with other owners, and look whether they are others."""
    host, place = circumstances.host, circumstances.place
    check = "idmapped mounts"
    if not host.privileged:
        return Finding(check, "n/a", "only root of the host may make them; runs do without")
    ids = (IdRange(0, SHIFTED_BASE, SHIFTED_COUNT),)
    id_map = IdMap(ids, ids, "parent")

    def act() -> str:
        # This is the host's root: should anything be attached by mistake, it goes with the child.
        enter_private_mounts()
        user_namespace = _user_namespace(id_map)
        for mount in (copy_tree(place, recursive=False), new_mount("tmpfs", (), 0)):
            owner = os.fstat(mount).st_uid
            set_ = _linux.MOUNT_ATTR_IDMAP
            _linux.mount_setattr(
                mount, set_=set_, userns_fd=user_namespace, recursive=False, label=place
            )
            seen = os.fstat(mount).st_uid
            if owner < SHIFTED_COUNT and seen != owner + SHIFTED_BASE:
                raise OSError(errno.EINVAL, f"owner {owner} is shown as {seen}", place)
        return f"on {host.filesystem_of(place)} ({place}) and tmpfs"

    return find_out(check, act, _why_not_idmapped)


def _user_namespace(id_map: IdMap) -> int:
    step = MountTree(HostPath("/"), id_map=id_map)
    return open_user_namespaces(Plan(HostPath("/"), (step,)))[id_map]


def _why_not_idmapped(number: int) -> Restriction:
    if number == errno.EINVAL:
        return Restriction(
            "this file system has none, so that root inside has the number of the host's root",
            "keep the tree on ext4, xfs, btrfs or, from Linux 6.3 on, tmpfs",
        )
    return why_no_user_namespace(number)


def probe_loop_device(circumstances: Circumstances) -> Finding:
    """Attach a nameless file to a loop device that lets go of it by itself."""
    check = "loop devices"
    if not circumstances.host.privileged:
        detail = "only root of the host may attach them; running a tree needs none"
        return Finding(check, "n/a", detail)
    return find_out(check, _attach_loop_device, _why_no_loop_device)


def _attach_loop_device() -> str:
    present = os.listdir("/sys/block")
    with tempfile.TemporaryFile() as image:
        image.truncate(_IMAGE_BYTES)
        loop = attach_loop(image.fileno(), 0, _IMAGE_BYTES, read_only=True)
    try:
        size = os.lseek(loop.fd, 0, os.SEEK_END)
    finally:
        os.close(loop.fd)  # the last one open: it detaches
        number = int(loop.path.removeprefix("/dev/loop"))
        if f"loop{number}" not in present:
            remove_loop(number)
    if size != _IMAGE_BYTES:
        raise OSError(errno.EIO, f"{size} bytes instead of {_IMAGE_BYTES}", loop.path)
    return f"{loop.path} took a file and let go of it"


def _why_no_loop_device(number: int) -> Restriction:
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV) or not _is_device(LOOP_CONTROL):
        return Restriction(
            "this kernel has no loop devices, or this container was given none",
            "as root: modprobe loop; in a container: --device /dev/loop-control and loop devices",
        )
    return Restriction("the kernel refused", "start the outer container with --privileged")


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False
