"""The kernel, its namespaces, a /proc of one's own, and openat2(2)."""

from __future__ import annotations

import os

from xbuild.plan.restrictions import Restriction, why_no_user_namespace
from xbuild.plan.surroundings import how_to_allow_proc
from xbuild.sandbox import _linux
from xbuild.sandbox.mountinfo import is_within, read_mountinfo
from xbuild.sandbox.mounts import new_mount
from xbuild.sandbox.probes.finding import (
    Circumstances,
    Finding,
    enter_private_mounts,
    enter_user_namespace,
    find_out,
)

LEAST_KERNEL = (5, 12)  # mount_setattr(2)
_EACH = (
    ("mount", _linux.CLONE_NEWNS),
    ("pid", _linux.CLONE_NEWPID),
    ("ipc", _linux.CLONE_NEWIPC),
    ("uts", _linux.CLONE_NEWUTS),
    ("cgroup", _linux.CLONE_NEWCGROUP),
    ("network", _linux.CLONE_NEWNET),
)
_REGISTRY = "/proc/sys/fs/binfmt_misc"  # a mount on an empty directory, which hides nothing


def probe_kernel(circumstances: Circumstances) -> Finding:
    """Compare the release with what xbuild's system calls need."""
    release = f"Linux {os.uname().release}"
    if circumstances.host.kernel >= LEAST_KERNEL:
        return Finding("kernel", "ok", release)
    least = ".".join(map(str, LEAST_KERNEL))
    return Finding("kernel", "missing", f"{release} is older than {least}", "use a newer kernel")


def probe_openat2(_circumstances: Circumstances) -> Finding:
    """Open a file below the root directory as every mount point of a container is opened."""

    def act() -> str:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY)
        resolve = _linux.RESOLVE_IN_ROOT | _linux.RESOLVE_NO_SYMLINKS
        _linux.openat2(root, "proc", flags=os.O_PATH, resolve=resolve)
        return "targets of mounts are resolved by the kernel"

    def explain(errno: int) -> Restriction:
        del errno
        return Restriction(
            "an outer container's seccomp filter is older than openat2(2), or the kernel is",
            "update the outer container's engine and libseccomp, or start it with"
            " --security-opt seccomp=unconfined",
        )

    return find_out("openat2", act, explain)


def probe_namespaces(_circumstances: Circumstances) -> Finding:
    """Enter a user namespace and one of each other kind, and mount something in them."""

    def act() -> str:
        enter_user_namespace(0)
        for name, flag in _EACH:
            try:
                _linux.unshare(flag)
            except OSError as error:
                raise OSError(error.errno, error.strerror, f"{name} namespace") from error
        new_mount("tmpfs", (), 0)
        return f"user, {', '.join(name for name, _ in _EACH)}"

    return find_out("namespaces", act, why_no_user_namespace)


def probe_proc(circumstances: Circumstances) -> Finding:
    """Mount a /proc for a new PID namespace, as a run does."""
    privileged = circumstances.host.privileged

    def act() -> str:
        if privileged:
            enter_private_mounts()
            _linux.unshare(_linux.CLONE_NEWPID)
        else:
            enter_user_namespace(_linux.CLONE_NEWNS | _linux.CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            status = 255
            try:
                new_mount("proc", (), 0)
                status = 0
            except OSError as error:
                status = error.errno or status
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != 0:
            raise OSError(status, os.strerror(status))
        return "processes inside see their own only"

    return find_out("own /proc", act, _why_no_proc)


def _why_no_proc(errno: int) -> Restriction:
    masks = [row.point for row in read_mountinfo() if is_within(row.point, "/proc")]
    masks = [point for point in masks if point not in ("/proc", _REGISTRY)]
    if masks:
        more = f" and {len(masks) - 3} more" if len(masks) > 3 else ""
        return Restriction(
            f"parts of /proc are masked here ({', '.join(masks[:3])}{more}), so that xbuild shows"
            " this /proc inside, where ps lists the processes outside too",
            how_to_allow_proc(),
        )
    return why_no_user_namespace(errno)
