"""What a guest may not do even in namespaces of its own: capabilities, set-user-ID, system calls.

The names of system calls stand here, the filters made of them in ``sandbox.filters``.
"""

from __future__ import annotations

from xbuild.errors import UsageError
from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from xbuild.plan.request import Request

    Filter = Literal["refuse", "no-sync", "no-flush", "no-mount"]

# linux/capability.h, in the order of their numbers; names as in capabilities(7)
CAPABILITIES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid"),
    *("setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw"),
    *("ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct"),
    *("sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod"),
    *("lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog"),
    *("wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore"),
)
# What the kernel grants only in the host's user namespace: without them a guest that asks what it
# may do (systemd's ConditionCapability=, capsh) gets a true answer.
WITHHELD = frozenset(
    (
        *("sys_module", "sys_rawio", "sys_pacct", "sys_time", "audit_control", "mac_override"),
        *("mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf"),
    )
)
EVERY = "all"

# What no build needs and the host's kernel does for root, or has had holes in. Those that a kernel
# may lack are answered as if it did, since programs have ways around that (ENOSYS).
REFUSED_EPERM = (
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module"),
    *("create_module", "query_module", "get_kernel_syms", "bpf", "perf_event_open", "userfaultfd"),
    *("swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "nfsservctl", "open_by_handle_at"),
    *("settimeofday", "stime", "clock_settime", "clock_settime64", "syslog", "lookup_dcookie"),
    *("iopl", "ioperm", "vm86", "vm86old", "pciconfig_iobase", "pciconfig_read", "pciconfig_write"),
)
REFUSED_ENOSYS = (
    *("add_key", "request_key", "keyctl", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("uselib", "_sysctl"),
)
# Sockets to the hypervisor, which no network namespace confines (vsock(7)).
REFUSED_SOCKET_FAMILY = 40  # sys/socket.h: AF_VSOCK
# For programs that must have CAP_SYS_ADMIN for some extended attributes, and nothing else by it.
REFUSED_MOUNT = (
    *("mount", "umount", "umount2", "pivot_root", "fsopen", "fspick", "fsconfig", "fsmount"),
    *("move_mount", "open_tree", "mount_setattr", "setns", "unshare"),
)
# linux/fs.h: BLKFLSBUF, which only the host's root may ask for, and xfs_repair cannot do without.
SKIPPED_IOCTL = 0x1261
SKIPPED_SYNC = ("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "sync_file_range2")


class LimitPrivileges(Record):
    """Take capabilities from the bounding set for good (capabilities(7)).

    ``no_new_privs``: set-user-ID programs and file capabilities gain nothing (prctl(2)).
    """

    dropped: tuple[str, ...]
    no_new_privs: bool


class FilterCalls(Record):
    """Install a seccomp filter (seccomp(2)) for process 1 and all that it starts.

    ``refuse`` answers kernel interfaces that no build needs with an error; ``no-sync`` makes
    fsync(2) and its like succeed without doing anything, ``no-flush`` SKIPPED_IOCTL.
    ``no-mount`` refuses mounts, unshare(2) and setns(2).
    """

    filter: Filter


def privilege_steps(request: Request) -> tuple[LimitPrivileges | FilterCalls, ...]:
    """Return what is given up just before the command starts."""
    dropped = (WITHHELD - _named(request.capabilities)) | _named(request.drop_capabilities)
    found: list[LimitPrivileges | FilterCalls] = [
        LimitPrivileges(
            tuple(name for name in CAPABILITIES if name in dropped),
            no_new_privs=not request.setuid,
        )
    ]
    if request.seccomp == "default":
        found.append(FilterCalls("refuse"))
    if request.no_sync:
        found.append(FilterCalls("no-sync"))
    return tuple(found)


def _named(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(CAPABILITIES if EVERY in names else names)


def capability_names(text: str) -> tuple[str, ...]:
    """Return names from a list such as ``CAP_NET_ADMIN,mknod``. Raises UsageError."""
    names = tuple(word.strip().lower().removeprefix("cap_") for word in text.split(","))
    for name in names:
        if name not in CAPABILITIES and name != EVERY:
            raise UsageError(
                f"No such capability: {name!r}", "names are those of capabilities(7), or all"
            )
    return names
