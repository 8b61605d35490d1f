"""Why a host refuses namespaces or mounts, read from where the kernel says so, and two ways out.

Off the start path: consulted when something was refused, and by ``xbuild doctor``.
"""

from __future__ import annotations

import os

from xbuild.record import Record

# errno.h
EPERM, EACCES, ENOSPC, ENOSYS, EINVAL, EUSERS = 1, 13, 28, 38, 22, 87


class Restriction(Record):
    """What stands in the way, and what to do about it."""

    cause: str
    hint: str


def read_sysctl(name: str) -> str | None:
    """Return a value below /proc/sys, or None where the kernel has no such setting."""
    try:
        with open("/proc/sys/" + name.replace(".", "/"), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def status_field(name: str) -> str | None:
    """Return a field of /proc/self/status (proc(5)), or None."""
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key == name:
                    return value.strip()
    except OSError:
        return None
    return None


def why_no_user_namespace(errno: int) -> Restriction:
    """Explain a refused user namespace, or capabilities withheld inside one."""
    if errno in (ENOSPC, EUSERS) or read_sysctl("user.max_user_namespaces") == "0":
        return Restriction(
            "user namespaces are used up or switched off (user.max_user_namespaces)",
            "as root: sysctl user.max_user_namespaces=15000; or run xbuild as root",
        )
    if read_sysctl("kernel.unprivileged_userns_clone") == "0" and os.geteuid() != 0:
        return Restriction(
            "this kernel keeps user namespaces to root (kernel.unprivileged_userns_clone=0)",
            "as root: sysctl kernel.unprivileged_userns_clone=1; or run xbuild as root",
        )
    if read_sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1" and os.geteuid() != 0:
        return Restriction(
            "AppArmor takes the capabilities of unprivileged user namespaces"
            " (kernel.apparmor_restrict_unprivileged_userns=1)",
            "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0,"
            " or an AppArmor profile that allows userns for xbuild; or run xbuild as root",
        )
    if status_field("Seccomp") == "2":
        return Restriction(
            "a seccomp filter, most likely of the container that xbuild runs in, forbids it",
            "start the outer container with --security-opt seccomp=unconfined"
            " --security-opt apparmor=unconfined, or with --privileged",
        )
    if errno == ENOSYS:
        return Restriction(
            "this kernel was built without user namespaces", "use a kernel with CONFIG_USER_NS"
        )
    return Restriction(
        "the kernel refused; a process inside a chroot may not make user namespaces"
        " (user_namespaces(7))",
        "start xbuild outside of the chroot; xbuild doctor shows what this host allows",
    )


def why_no_private_binfmt(errno: int) -> Restriction:
    """Explain a binfmt_misc instance that could not be mounted or written."""
    release = os.uname().release
    if kernel_version(release) < (6, 7):
        return Restriction(
            f"Linux {release} has one binfmt_misc registry for all; private ones came with 6.7",
            "as root: xbuild binfmt register ARCH, then run with --binfmt host;"
            " or use a newer kernel",
        )
    if errno == 19:  # ENODEV
        return Restriction(
            "this kernel has no binfmt_misc", "as root: modprobe binfmt_misc (CONFIG_BINFMT_MISC)"
        )
    return Restriction(
        "mounting binfmt_misc was refused, most likely by the container that xbuild runs in",
        "allow mount(2) in the outer container's seccomp and AppArmor profiles,"
        " or register on the host (xbuild binfmt register) and run with --binfmt host",
    )


def kernel_version(release: str) -> tuple[int, int]:
    """Return (major, minor) of a release such as ``6.18.44-fc``; (0, 0) when it has none."""
    numbers = []
    for part in release.split(".", 2)[:2]:
        digits = part[: next((i for i, c in enumerate(part) if not c.isdigit()), len(part))]
        numbers.append(int(digits or 0))
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)
