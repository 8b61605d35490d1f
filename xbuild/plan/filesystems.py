"""The container's own file systems: the kernel's /proc and /sys, /dev, and empty /run and /tmp."""

from __future__ import annotations

from xbuild.plan import steps
from xbuild.plan.devices import device_bind
from xbuild.plan.guest import api_path
from xbuild.record import GuestPath, HostPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from xbuild.plan.guest import Guest
    from xbuild.plan.host import Host
    from xbuild.plan.ids import Identities
    from xbuild.plan.steps import Step

    Options = tuple[tuple[str, str | None], ...]

_DEVICE_NUMBERS = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_TTY_GID = 5  # base-passwd's and everyone's group tty


def api_steps(
    host: Host, guest: Guest, ids: Identities, inodes: Options
) -> tuple[list[Step], list[str]]:
    """Return the steps that mount them, and notes; ``inodes`` are options of each tmpfs(5)."""
    proc, notes = _mount_proc(api_path(guest, "/proc"), host, ids)
    return [
        *proc,
        _mount_sys(api_path(guest, "/sys"), host),
        *_mount_dev(api_path(guest, "/dev"), host, ids, inodes),
        *_mount_temporary(guest, ids, inodes),
    ], notes


def _mount_proc(target: GuestPath, host: Host, ids: Identities) -> tuple[list[Step], list[str]]:
    found: list[Step] = []
    notes: list[str] = []
    if host.proc_is_masked:
        found.append(steps.Bind(HostPath("/proc"), target, nodev=False))
        notes.append(
            "parts of /proc are masked here, so that the kernel grants no fresh one: the outer"
            " container's is shown instead, and ps lists its processes"
        )
    else:
        found.append(steps.Proc(target))
    names = host.proc_entries
    if ids.kind in ("identity", "nested"):  # root inside may have the host's number
        names = tuple(sorted({*names, *host.changeable_proc_entries}))
    found += [steps.ReadOnlyOver(GuestPath(f"{target}/{name}")) for name in names]
    return found, notes


def _mount_sys(target: GuestPath, host: Host) -> Step:
    if host.privileged:
        return steps.Sysfs(target)
    return steps.Bind(HostPath("/sys"), target, read_only=True)


def _mount_dev(dev: GuestPath, host: Host, ids: Identities, inodes: Options) -> Iterator[Step]:
    owner = ids.owner
    yield steps.Tmpfs(dev, 0o755, owner, (("size", "1m"),), nodev=False)
    for name in host.devices:
        node = GuestPath(f"{dev}/{name}")
        if host.privileged:
            major, minor = _DEVICE_NUMBERS[name]
            yield steps.DeviceNode(node, major, minor, owner=owner)
        else:
            yield device_bind(HostPath(f"/dev/{name}"), node, "file", owner)
    for name, text in _DEVICE_LINKS:
        yield steps.Symlink(GuestPath(f"{dev}/{name}"), text, owner)
    for name in ("pts", "shm", "mqueue"):
        yield steps.Directory(GuestPath(f"{dev}/{name}"), 0o755, owner)
    yield steps.Devpts(GuestPath(f"{dev}/pts"), _tty_gid(ids), owner)
    yield steps.Tmpfs(GuestPath(f"{dev}/shm"), 0o1777, owner, inodes)


def _tty_gid(ids: Identities) -> int | None:
    if ids.outer is not None:
        return _TTY_GID if ids.outer.outside_gid(_TTY_GID) is not None else None
    return ids.inner.outside_gid(_TTY_GID)


def _mount_temporary(guest: Guest, ids: Identities, inodes: Options) -> tuple[Step, ...]:
    run, owner = api_path(guest, "/run"), ids.owner
    return (
        steps.Tmpfs(run, 0o755, owner, inodes),
        steps.Directory(GuestPath(f"{run}/lock"), 0o1777, owner),
        steps.Directory(GuestPath(f"{run}/xbuild"), 0o755, owner),
        steps.Tmpfs(api_path(guest, "/tmp"), 0o1777, owner, inodes),
    )
