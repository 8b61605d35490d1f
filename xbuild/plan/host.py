"""What this host is and may do, as far as a plan depends on it: probes that only read.

Whether something works is found by doing it: ``xbuild doctor`` does so beforehand, a run when it
gets there. Here stand the facts that choose between ways.
"""

from __future__ import annotations

import os
import stat

from xbuild.plan.kernel import kernel_version, read_proc, read_status, read_sysctl
from xbuild.record import HostPath, Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.limiting import Hierarchies

# linux/capability.h
_CAP_CHOWN = 0
_CAP_DAC_OVERRIDE = 1
_CAP_FOWNER = 3
_CAP_SETGID = 6
_CAP_SETUID = 7
_CAP_SYS_ADMIN = 21
_CAP_MKNOD = 27
_CAP_SETFCAP = 31
_TO_MAP_IDS = (_CAP_SETGID, _CAP_SETUID, _CAP_SETFCAP)
_TO_MOUNT = (_CAP_SYS_ADMIN, _CAP_MKNOD, _CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_FOWNER)
_PROC_USER_INIT_INO = 0xEFFFFFFD  # linux/proc_ns.h: the same on every machine
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# Writing here reaches the whole host: docker's readonlyPaths (moby oci/defaults.go) and sysrq.
PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs")
# FS_ALLOW_IDMAP in fs/*/*.c, for the kernels that have mount_setattr(2); overlayfs lacks it.
_IDMAPPABLE = frozenset(
    ("ext4", "xfs", "btrfs", "f2fs", "vfat", "msdos", "ntfs3", "erofs", "bcachefs")
)
_IDMAPPABLE_SINCE = {"squashfs": (6, 2), "tmpfs": (6, 3), "ceph": (6, 7)}


class Mount(Record):
    """One line of /proc/self/mountinfo (proc_pid_mountinfo(5)); ``number`` and ``parent``: ids."""

    point: HostPath
    filesystem: str
    number: int
    parent: int
    is_idmapped: bool = False


class SubIds(Record):
    """Consecutive ids: granted to this user (subuid(5)), or mapped in this user namespace."""

    start: int
    count: int


class NetworkFacts(Record):
    """What this host has for networks of containers' own: programs that were found, its id."""

    slirp4netns: HostPath | None
    ip: HostPath | None
    machine_id: str


class Host(Record):
    """The facts of this host for one user.

    ``privileged``: root of the initial user namespace, with all that assembling a view takes.
    """

    kernel: tuple[int, int]
    euid: int
    egid: int
    privileged: bool
    can_map_ids: bool  # all that are mapped here, and not only its own one (user_namespaces(7))
    no_new_privs: bool  # set-user-ID programs, such as newuidmap, gain nothing (prctl(2))
    has_own_proc: bool  # /proc is mounted, and of this process's PID namespace
    own_uids: tuple[SubIds, ...]  # those mapped in the current user namespace
    own_gids: tuple[SubIds, ...]
    has_setgroups: bool  # setgroups(2) is not denied here, nor below (user_namespaces(7))
    sub_uids: tuple[SubIds, ...]
    sub_gids: tuple[SubIds, ...]
    has_newuidmap: bool
    mounts: tuple[Mount, ...]
    devices: tuple[str, ...]  # those that can be had: made, or bound from the host's /dev
    proc_entries: tuple[str, ...]  # those of PROC_READ_ONLY that this kernel has
    resolv_conf: HostPath | None
    hosts: str
    has_cgroup_namespaces: bool = True  # none may be made inside a container of xbuild's
    network: NetworkFacts | None = None  # read where a network of its own is asked for
    hierarchies: Hierarchies | None = None  # of control groups; read where limits are asked for
    can_limit_namespaces: bool = True  # /proc/sys is writable to whoever has the privilege
    # Besides proc_entries: what root may change by its number alone, as in /proc/acpi.
    changeable_proc_entries: tuple[str, ...] = ()
    # Set-user-ID root does not do for newuidmap in a container whose root lacks CAP_SYS_ADMIN: it
    # writes the map as root, who then has no privilege in the namespace below (map_write() in
    # kernel/user_namespace.c). With file capabilities it stays the user, whose namespace that is.
    newuidmap_is_held_back: bool = False

    @classmethod
    def probe(cls) -> Host:
        """Read the facts, but for ``changeable_proc_entries``; starts no process."""
        euid = os.geteuid()
        status = read_status()
        capabilities = int(status.get("CapEff", "0"), 16)
        uid_map = _read_map("/proc/self/uid_map")
        can_map_ids = _has(capabilities, _TO_MAP_IDS)
        is_initial = _is_initial_user_namespace() and _has(capabilities, _TO_MOUNT)
        privileged = euid == 0 and is_initial and can_map_ids
        by_helper = euid != 0
        return cls(
            kernel=kernel_version(os.uname().release),
            euid=euid,
            egid=os.getegid(),
            privileged=privileged,
            can_map_ids=can_map_ids,
            no_new_privs=status.get("NoNewPrivs") == "1",
            has_own_proc=_has_own_proc(),
            own_uids=_mapped(uid_map),
            own_gids=_mapped(_read_map("/proc/self/gid_map")),
            has_setgroups=read_proc("/proc/self/setgroups").strip() != "deny",
            sub_uids=_sub_ids("/etc/subuid", euid) if by_helper else (),
            sub_gids=_sub_ids("/etc/subgid", euid) if by_helper else (),
            has_newuidmap=by_helper and _on_path("newuidmap") and _on_path("newgidmap"),
            mounts=_read_mounts(),
            devices=tuple(n for n in _DEVICES if privileged or os.path.exists(f"/dev/{n}")),
            proc_entries=tuple(n for n in PROC_READ_ONLY if os.path.exists(f"/proc/{n}")),
            resolv_conf=_real_file("/etc/resolv.conf"),
            hosts=read_proc("/etc/hosts"),
            has_cgroup_namespaces=read_sysctl("user.max_cgroup_namespaces") != "0",
            can_limit_namespaces=_is_writable_mount("/proc/sys/user"),
            newuidmap_is_held_back=by_helper
            and not _has(int(status.get("CapBnd", "0"), 16), (_CAP_SYS_ADMIN,))
            and _is_setuid("newuidmap"),
        )

    @property
    def can_use_newuidmap(self) -> bool:
        """Whether newuidmap is there and has the privilege that it needs."""
        return self.has_newuidmap and not self.no_new_privs and not self.newuidmap_is_held_back

    def with_changeable_proc_entries(self) -> Host:
        """Read those as well: they matter only where root inside may have root's own number."""
        return replace(self, changeable_proc_entries=_changeable_proc_entries())

    def mounts_below(self, path: HostPath) -> tuple[Mount, ...]:
        """Return what is mounted strictly below ``path``, and seen there."""
        prefix = path.rstrip("/") + "/"
        below = (m for m in self.mounts if m.point.startswith(prefix) and m.point != prefix)
        return tuple(mount for mount in below if not self._is_hidden(mount))

    def mount_of(self, path: HostPath) -> Mount:
        """Return the mount that ``path`` is on."""
        best = Mount(HostPath("/"), "rootfs", 0, 0)
        for mount in self.mounts:
            is_nearer = len(mount.point) >= len(best.point) and is_within(path, mount.point)
            if is_nearer and not self._is_hidden(mount):
                best = mount
        return best

    def filesystem_of(self, path: HostPath) -> str:
        """Return the type of the file system that ``path`` is on."""
        return self.mount_of(path).filesystem

    def _is_hidden(self, mount: Mount) -> bool:
        """Tell whether another mount lies over this one, or over a directory on the way to it."""
        if any(m.parent == mount.number and m.point == mount.point for m in self.mounts):
            return True
        above: Mount | None = mount
        while above is not None:
            for other in self.mounts:
                is_sibling = other.parent == above.parent and other.number != above.number
                if is_sibling and is_within(above.point, other.point):
                    return True
            above = next((m for m in self.mounts if m.number == above.parent), None)
        return False

    def can_idmap(self, path: HostPath, *, with_submounts: bool = False) -> bool:
        """Tell whether the file system at ``path`` can be shown by an idmapped mount."""
        mounts = (self.mount_of(path), *(self.mounts_below(path) if with_submounts else ()))
        return all(self._is_idmappable(mount) for mount in mounts)

    def _is_idmappable(self, mount: Mount) -> bool:
        return not mount.is_idmapped and self.can_idmap_type(mount.filesystem)

    def can_idmap_type(self, filesystem: str) -> bool:
        """Tell whether mounts of a type of file system can be idmapped."""
        if self.kernel < (5, 12):
            return False
        since = _IDMAPPABLE_SINCE.get(filesystem)
        return filesystem in _IDMAPPABLE or (since is not None and self.kernel >= since)

    @property
    def proc_is_masked(self) -> bool:
        """Whether parts of /proc are covered, so that the kernel grants no fresh one (EPERM).

        It grants one to root of the initial user namespace nevertheless.
        """
        if self.privileged:
            return False
        harmless = ("/proc/sys/fs/binfmt_misc",)  # it lies on an empty directory
        below = self.mounts_below(HostPath("/proc"))
        return any(mount.point not in harmless for mount in below)

    @property
    def has_private_binfmt(self) -> bool:
        """Whether this kernel keeps a binfmt_misc registry for each user namespace."""
        return self.kernel >= (6, 7)


def _changeable_proc_entries() -> tuple[str, ...]:
    found = []
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() or entry.is_symlink():
                continue
            if entry.is_dir() or entry.stat().st_mode & stat.S_IWUSR:
                found.append(entry.name)
    return tuple(sorted(found))


def _is_writable_mount(path: str) -> bool:
    try:
        return not os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError:
        return False  # masked by an outer container


def _is_initial_user_namespace() -> bool:
    # Not by the map: a container may have been given all ids.
    try:
        return os.stat("/proc/self/ns/user").st_ino == _PROC_USER_INIT_INO
    except OSError:
        return False


def _has(capabilities: int, numbers: tuple[int, ...]) -> bool:
    return all(capabilities >> number & 1 for number in numbers)


def _has_own_proc() -> bool:
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _read_map(path: str) -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in read_proc(path).splitlines()]


def _mapped(lines: list[tuple[str, ...]]) -> tuple[SubIds, ...]:
    return tuple(SubIds(int(inside), int(count)) for inside, _, count in lines)


def _real_file(path: str) -> HostPath | None:
    real = os.path.realpath(path)
    return HostPath(real) if os.path.isfile(real) else None


def is_within(path: str, directory: str) -> bool:
    """Tell whether an absolute path is a directory or lies below it, by the names alone."""
    return directory == "/" or path == directory or path.startswith(f"{directory}/")


def _read_mounts() -> tuple[Mount, ...]:
    mounts = []
    for line in read_proc("/proc/self/mountinfo").split("\n")[:-1]:  # other breaks may be in names
        fields = line.split(" ")
        filesystem = fields[fields.index("-", 6) + 1]
        point = fields[4]
        if "\\" in point:
            point = _unescaped(point)
        number, parent = int(fields[0]), int(fields[1])
        is_idmapped = "idmapped" in fields[5].split(",")
        mounts.append(Mount(HostPath(point), filesystem, number, parent, is_idmapped))
    return tuple(mounts)


def _unescaped(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _sub_ids(path: str, uid: int) -> tuple[SubIds, ...]:
    import pwd  # only for ordinary users

    names = {str(uid), *(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == uid)}
    granted = []
    for line in read_proc(path).splitlines():
        name, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if name in names and start.isdigit() and count.isdigit() and int(count):
            granted.append(SubIds(int(start), int(count)))
    return tuple(granted)


def _on_path(program: str) -> bool:
    return _find(program) is not None


def _is_setuid(program: str) -> bool:
    path = _find(program)
    return path is not None and bool(os.stat(path).st_mode & stat.S_ISUID)


def _find(program: str) -> str | None:
    directories = os.environ.get("PATH", os.defpath).split(":")
    paths = (f"{directory}/{program}" for directory in directories if directory)
    return next((path for path in paths if os.access(path, os.X_OK)), None)
