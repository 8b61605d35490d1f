"""Why a host refuses namespaces or mounts, read from where the kernel says so, and two ways out.

Off the start path: consulted when something was refused, and by ``xbuild doctor``.
"""

from __future__ import annotations

import os

from xbuild.plan.kernel import kernel_version, read_status, read_sysctl
from xbuild.plan.surroundings import how_to_allow_namespaces, is_service_with_sudo, outer_engine
from xbuild.record import Record

# errno.h
ENOENT, EACCES, ENODEV, ENOSPC, EUSERS = 2, 13, 19, 28, 87

FUSE_DEVICE = "/dev/fuse"

_SYSCTLS = (
    (
        "kernel.unprivileged_userns_clone",
        "0",
        "1",
        "this kernel keeps user namespaces to root",
    ),
    (
        "kernel.apparmor_restrict_unprivileged_userns",
        "1",
        "0",
        "AppArmor takes the capabilities of unprivileged user namespaces",
    ),
)
_LIMITS = ("user", "mnt", "pid", "ipc", "uts", "cgroup", "net")


class Restriction(Record):
    """What stands in the way, and what to do about it."""

    cause: str
    hint: str


def why_no_user_namespace(errno: int) -> Restriction:
    """Explain a refused namespace, or capabilities withheld in a user namespace."""
    if errno in (ENOSPC, EUSERS):
        return _used_up()
    if not os.path.exists("/proc/self/ns/user"):
        return Restriction(
            "this kernel was built without user namespaces, or /proc is not mounted here",
            "use a kernel with CONFIG_USER_NS",
        )
    return _withheld_from_users() or _withheld_by_surroundings(errno)


def _used_up() -> Restriction:
    names = (f"user.max_{kind}_namespaces" for kind in _LIMITS)
    name = next((name for name in names if read_sysctl(name) == "0"), None)
    if name is not None:
        return Restriction(
            f"such namespaces are switched off ({name}=0)",
            f"as root: sysctl {name}=15000{_or_as_root()}",
        )
    return Restriction(
        "namespaces are used up, here or in an outer user namespace (user.max_*_namespaces)",
        f"as the host's root: sysctl user.max_user_namespaces=15000{_or_as_root()}",
    )


def _or_as_root() -> str:
    return "; or run xbuild as root" if os.geteuid() else ""


def _withheld_from_users() -> Restriction | None:
    if os.geteuid() == 0:
        return None
    for name, forbids, allows, cause in _SYSCTLS:
        if read_sysctl(name) == forbids:
            profile = ", or an AppArmor profile that allows userns for xbuild"
            how = (
                "in a step before: sudo sysctl -w" if is_service_with_sudo() else "as root: sysctl"
            )
            return Restriction(
                f"{cause} ({name}={forbids})",
                f"{how} {name}={allows}{profile if 'apparmor' in name else ''}{_or_as_root()}",
            )
    return None


def _withheld_by_surroundings(errno: int) -> Restriction:
    if errno == EACCES and outer_engine() is not None:
        return Restriction(
            "a security module refused, most likely by the profile of the container that xbuild"
            " runs in",
            how_to_allow_namespaces(),
        )
    if errno == EACCES:
        return Restriction(
            "a security module refused, by its policy",
            "as root: ausearch -m avc, or dmesg, names the rule; or run xbuild as root",
        )
    if is_in_chroot():
        return Restriction(
            "a process inside a chroot may not make user namespaces (user_namespaces(7))",
            "start xbuild outside of the chroot; or enter it by pivot_root(2), as containers do",
        )
    if read_status().get("Seccomp") == "2":
        return Restriction(
            "a seccomp filter, most likely of the container that xbuild runs in, forbids it",
            how_to_allow_namespaces(),
        )
    return Restriction(
        "the kernel refused; a process inside a chroot may not make user namespaces"
        " (user_namespaces(7))",
        "start xbuild outside of the chroot; xbuild doctor shows what this host allows",
    )


def is_in_chroot() -> bool:
    """Tell whether the root directory is surely not that of the mount namespace.

    True where no mount is at "/". A chroot into a mount point is not told apart.
    """
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return all(line.split(" ", 5)[4] != "/" for line in file)
    except OSError:
        return False


def why_no_private_binfmt(errno: int) -> Restriction:
    """Explain a binfmt_misc instance that could not be mounted or written."""
    release = os.uname().release
    if kernel_version(release) < (6, 7):
        return Restriction(
            f"Linux {release} has one binfmt_misc registry for all; private ones came with 6.7",
            "as root: xbuild binfmt register ARCH, then run with --binfmt host;"
            " or use a newer kernel",
        )
    if errno == ENODEV:
        return Restriction(
            "this kernel has no binfmt_misc", "as root: modprobe binfmt_misc (CONFIG_BINFMT_MISC)"
        )
    return Restriction(
        "mounting binfmt_misc was refused, most likely by the container that xbuild runs in",
        "allow mount(2) in the outer container's seccomp and AppArmor profiles,"
        " or register on the host (xbuild binfmt register) and run with --binfmt host",
    )


def why_no_fuse(errno: int) -> Restriction:
    """Explain a FUSE device that could not be opened, or a mount of it that was refused."""
    if errno == EACCES:
        return Restriction(
            "only root may open it",
            f"as root: chmod 666 {FUSE_DEVICE}, its mode where udev made it",
        )
    if errno in (ENOENT, ENODEV):
        return Restriction(
            "this kernel has no FUSE, or this container was not given the device",
            "as root: modprobe fuse; in a container: --device /dev/fuse",
        )
    return Restriction("the kernel refused", "in a container: --device /dev/fuse")
