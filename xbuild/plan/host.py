"""What this host is and may do, as far as a plan depends on it: probes that only read.

Whether something works is found by doing it: ``xbuild doctor`` does so beforehand, a run when it
gets there. Here stand the facts that choose between ways.
"""

from __future__ import annotations

import os

from xbuild.plan.restrictions import kernel_version, status_field
from xbuild.record import HostPath, Record

TYPE_CHECKING = False

_CAP_SYS_ADMIN = 21  # linux/capability.h
_ALL_IDS = ("0", "0", "4294967295")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# Writing here reaches the whole host: docker's readonlyPaths (moby oci/defaults.go) and sysrq.
PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs")
# FS_ALLOW_IDMAP in fs/*/*.c, for the kernels that have mount_setattr(2); overlayfs lacks it.
_IDMAPPABLE = frozenset(
    ("ext4", "xfs", "btrfs", "f2fs", "vfat", "msdos", "ntfs3", "erofs", "bcachefs")
)
_IDMAPPABLE_SINCE = {"squashfs": (6, 2), "tmpfs": (6, 3), "ramfs": (6, 15), "ceph": (6, 7)}


class Mount(Record):
    """One line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    point: HostPath
    filesystem: str


class SubIds(Record):
    """Consecutive ids: granted to this user (subuid(5)), or mapped in this user namespace."""

    start: int
    count: int


class Host(Record):
    """The facts of this host for one user. ``privileged``: root of the initial user namespace."""

    kernel: tuple[int, int]
    euid: int
    egid: int
    privileged: bool
    own_uids: tuple[SubIds, ...]  # those mapped in the current user namespace
    own_gids: tuple[SubIds, ...]
    sub_uids: tuple[SubIds, ...]
    sub_gids: tuple[SubIds, ...]
    has_newuidmap: bool
    mounts: tuple[Mount, ...]
    devices: tuple[str, ...]
    proc_entries: tuple[str, ...]  # those of PROC_READ_ONLY that this kernel has
    resolv_conf: HostPath | None
    hosts: str

    @classmethod
    def probe(cls) -> Host:
        """Read the facts. Changes nothing, and starts no process."""
        euid = os.geteuid()
        uid_map = _read_map("/proc/self/uid_map")
        privileged = euid == 0 and uid_map == [_ALL_IDS] and _has_sys_admin()
        by_helper = euid != 0
        return cls(
            kernel=kernel_version(os.uname().release),
            euid=euid,
            egid=os.getegid(),
            privileged=privileged,
            own_uids=_mapped(uid_map),
            own_gids=_mapped(_read_map("/proc/self/gid_map")),
            sub_uids=_sub_ids("/etc/subuid", euid) if by_helper else (),
            sub_gids=_sub_ids("/etc/subgid", euid) if by_helper else (),
            has_newuidmap=by_helper and _on_path("newuidmap") and _on_path("newgidmap"),
            mounts=_read_mounts(),
            devices=tuple(name for name in _DEVICES if os.path.exists(f"/dev/{name}")),
            proc_entries=tuple(n for n in PROC_READ_ONLY if os.path.exists(f"/proc/{n}")),
            resolv_conf=_real_file("/etc/resolv.conf"),
            hosts=_read_text("/etc/hosts"),
        )

    def mounts_below(self, path: HostPath) -> tuple[Mount, ...]:
        """Return what is mounted strictly below ``path``."""
        prefix = path.rstrip("/") + "/"
        return tuple(m for m in self.mounts if m.point.startswith(prefix) and m.point != prefix)

    def filesystem_of(self, path: HostPath) -> str:
        """Return the type of the file system that ``path`` is on."""
        best = Mount(HostPath("/"), "rootfs")
        for mount in self.mounts:
            covers = mount.point == "/" or path == mount.point or path.startswith(mount.point + "/")
            if covers and len(mount.point) >= len(best.point):
                best = mount
        return best.filesystem

    def can_idmap(self, path: HostPath, *, with_submounts: bool = False) -> bool:
        """Tell whether the file system at ``path`` can be shown by an idmapped mount."""
        kinds = {self.filesystem_of(path)}
        if with_submounts:
            kinds |= {mount.filesystem for mount in self.mounts_below(path)}
        return all(self.can_idmap_type(kind) for kind in kinds)

    def can_idmap_type(self, filesystem: str) -> bool:
        """Tell whether mounts of a type of file system can be idmapped."""
        if self.kernel < (5, 12):
            return False
        since = _IDMAPPABLE_SINCE.get(filesystem)
        return filesystem in _IDMAPPABLE or (since is not None and self.kernel >= since)

    @property
    def proc_is_masked(self) -> bool:
        """Whether parts of /proc are covered, so that the kernel grants no fresh one (EPERM)."""
        harmless = ("/proc/sys/fs/binfmt_misc",)  # it lies on an empty directory
        below = self.mounts_below(HostPath("/proc"))
        return any(mount.point not in harmless for mount in below)

    @property
    def has_private_binfmt(self) -> bool:
        """Whether this kernel keeps a binfmt_misc registry for each user namespace."""
        return self.kernel >= (6, 7)


def _has_sys_admin() -> bool:
    effective = status_field("CapEff")
    return effective is not None and bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


def _read_map(path: str) -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in _read_text(path).splitlines()]


def _mapped(lines: list[tuple[str, ...]]) -> tuple[SubIds, ...]:
    return tuple(SubIds(int(inside), int(count)) for inside, _, count in lines)


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _real_file(path: str) -> HostPath | None:
    real = os.path.realpath(path)
    return HostPath(real) if os.path.isfile(real) else None


def _read_mounts() -> tuple[Mount, ...]:
    mounts = []
    for line in _read_text("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        filesystem = fields[fields.index("-", 6) + 1]
        point = fields[4]
        if "\\" in point:
            point = _unescaped(point)
        mounts.append(Mount(HostPath(point), filesystem))
    return tuple(mounts)


def _unescaped(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _sub_ids(path: str, uid: int) -> tuple[SubIds, ...]:
    import pwd  # only for ordinary users

    names = {str(uid), *(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == uid)}
    granted = []
    for line in _read_text(path).splitlines():
        name, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if name in names and start.isdigit() and count.isdigit() and int(count):
            granted.append(SubIds(int(start), int(count)))
    return tuple(granted)


def _on_path(program: str) -> bool:
    directories = os.environ.get("PATH", os.defpath).split(":")
    return any(
        os.access(f"{directory}/{program}", os.X_OK) for directory in directories if directory
    )
