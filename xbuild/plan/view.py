"""The mounts of a container, in order: the tree, the kernel's own file systems, what was asked."""

from __future__ import annotations

import stat

from xbuild.errors import HostUnable, TargetError, UsageError
from xbuild.plan import steps
from xbuild.plan.devices import device_bind, directory_bind, has_devices
from xbuild.plan.guest import API_DIRECTORIES, Place
from xbuild.plan.request import BindRequest, TmpfsRequest
from xbuild.record import GuestPath, HostPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.disk import Disk
    from xbuild.plan.emulate import Emulation
    from xbuild.plan.guest import Guest
    from xbuild.plan.host import Host, Mount
    from xbuild.plan.identities import Identities
    from xbuild.plan.native import Native
    from xbuild.plan.request import OverlayRequest, Request
    from xbuild.plan.steps import Create, Step

OWN_DIRECTORY = GuestPath("/run/xbuild")  # on the container's tmpfs: interpreters, hosts
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
_API_FILESYSTEMS = frozenset(
    ("proc", "sysfs", "devtmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "binfmt_misc")
)
_BARE_RESOLV_CONF = Place(GuestPath("/"), ("etc", "resolv.conf"), stat.S_IFDIR)
_TTY_GID = 5  # base-passwd's and everyone's group tty


class View:
    """Collects the steps that assemble a container's view, and the notes about it."""

    def __init__(
        self,
        request: Request,
        host: Host,
        guest: Guest,
        ids: Identities,
        *,
        narrow_inodes: bool,
        disk: Disk | None = None,
    ) -> None:
        self._request = request
        self._disk = disk
        self._host = host
        self._guest = guest
        self._ids = ids
        # Where nothing can change there is nothing to discard.
        self._is_overlay = request.ephemeral and not request.read_only
        # A root that is a tmpfs but for /usr: what the tree has elsewhere is not there.
        self._is_bare = request.volatile
        self._inodes: tuple[tuple[str, str | None], ...] = ()
        if narrow_inodes:
            # 32-bit programs built without large file support fail on 64-bit inode numbers.
            self._inodes = (("inode32", None),)
        self._covered = {place.path for place in guest.api}
        self._missing: dict[GuestPath, list[tuple[GuestPath, Create]]] = {}
        self._requested: dict[GuestPath, TmpfsRequest | BindRequest | OverlayRequest] = {}
        self.steps: list[Step] = []
        self.notes: list[str] = []

    def assemble(self, emulations: tuple[Emulation, ...], native: Native | None = None) -> None:
        """Put all steps in order."""
        if self._request.persist is not None or self._is_bare:
            self._mount_layered_root()
        elif self._disk is None:
            self._mount_root()
        else:
            self._mount_image(self._disk)
        at = len(self.steps)
        if self._disk is not None:
            self._mount_volumes(self._disk)
        for place, name in zip(self._guest.api, API_DIRECTORIES, strict=True):
            if self._create_if_missing(place, "directory", name) == "directory":
                self._add(steps.Directory(place.path, 0o755, self._ids.owner))
        self._mount_proc()
        self._mount_sys()
        self._mount_dev()
        self._mount_temporary()
        for emulation in emulations:
            self._show_interpreter(emulation)
        self._show_registered(emulations)
        self._name_hosts()
        self._mount_requested()
        if native is not None:
            self._show_native(native)
        self.steps[at:at] = self._scaffolds()

    def _add(self, *new: Step) -> None:
        self.steps.extend(new)

    @property
    def mqueue(self) -> GuestPath:
        """Where message queues are mounted."""
        return GuestPath(f"{self._api('/dev')}/mqueue")

    @property
    def sysfs(self) -> GuestPath:
        """Where sysfs is mounted."""
        return self._api("/sys")

    def _api(self, name: str) -> GuestPath:
        return self._guest.api[API_DIRECTORIES.index(GuestPath(name))].path

    def _mount_root(self) -> None:
        request, ids = self._request, self._ids
        below = self._host.mounts_below(request.target)
        # An ordinary user may not copy a mount without those below it: mount_namespaces(7).
        recursive = bool(below) and ids.outer is not None
        if self._is_overlay:
            if recursive:
                raise _no_overlay(request.target, below)
            self._add(
                steps.MountOverlay(
                    request.target,
                    recursive,
                    ids.tree,
                    ids.owner,
                    in_user_namespace=ids.outer is not None,
                )
            )
        else:
            self._add(steps.MountTree(request.target, request.read_only, recursive, ids.tree))
        if below and not recursive:
            self._mount_below()

    def _mount_layered_root(self) -> None:
        from xbuild.plan.layering import persistent_step, volatile_step  # off the start path

        if self._disk is not None:
            raise UsageError(
                "--persist and --volatile yes are for directories, not for images",
                "--ephemeral discards all changes to an image",
            )
        if self._is_bare:
            self._add(volatile_step(self._request, self._guest, self._ids))
            return
        self._add(persistent_step(self._request, self._host, self._ids))
        if self._host.mounts_below(self._request.target):
            self._mount_below()

    def _mount_image(self, disk: Disk) -> None:
        from xbuild.plan.disk import open_steps  # only for images

        request, ids = self._request, self._ids
        image, volume = request.target, disk.root.name
        if not disk.is_served:  # or else it was opened before process 1 was there
            self._add(*open_steps(disk))
        if self._is_overlay:
            in_user_namespace = ids.outer is not None
            self._add(
                steps.MountOverlay(
                    image, False, ids.tree, ids.owner, in_user_namespace, volume=volume
                )
            )
        else:
            self._add(steps.MountTree(image, disk.root.read_only, False, ids.tree, volume))
        self.notes += disk.notes

    def _mount_volumes(self, disk: Disk) -> None:
        """Show the image's other file systems where its fstab says."""
        from xbuild.plan.disk import show_volume  # only for images

        for seat in disk.seats:
            create = self._create_if_missing(seat.place, "directory", seat.target)
            id_map = self._volume_map(seat.volume.filesystem)
            step, note = show_volume(
                disk, seat, create, self._ids, id_map=id_map, is_ephemeral=self._is_overlay
            )
            self._add(step)
            self.notes += [note] if note else []
        self._add(*(steps.ReadOnlyOver(path) for path in disk.closed))

    def _volume_map(self, filesystem: str) -> steps.IdMap | None:
        return self._ids.tree if self._host.can_idmap_type(filesystem) else None

    def _mount_below(self) -> None:
        target = self._request.target
        for mount in self._host.mounts_below(target):
            place = GuestPath("/" + mount.point[len(target.rstrip("/")) + 1 :])
            if mount.filesystem in _API_FILESYSTEMS or self._is_covered(place):
                continue
            id_map = self._ids.tree if self._host.can_idmap(mount.point) else None
            read_only = self._request.read_only or self._is_overlay
            self._add(
                steps.Bind(
                    mount.point, place, read_only, recursive=False, id_map=id_map, is_real=True
                )
            )
            if self._is_overlay:
                self.notes.append(f"{place} is a mount of its own: read-only in this container")

    def _is_covered(self, place: GuestPath) -> bool:
        return any(f"{place}/".startswith(f"{each}/") for each in self._covered)

    def _create_if_missing(self, place: Place, kind: Create, asked: GuestPath) -> Create:
        """Return how a mount point comes to be; on the tree's own disk nothing is made."""
        if self._is_bare and not f"{place.path}/".startswith("/usr/"):
            return kind
        above = self._requested_above(place.path)
        if above is not None:
            return kind if isinstance(above, TmpfsRequest) else "no"
        if stat.S_ISDIR(place.mode) != (kind == "directory" or bool(place.missing)):
            where = f"{place.existing} is" if place.missing else "it is"
            found = "a directory" if stat.S_ISDIR(place.mode) else "no directory"
            raise TargetError(
                f"Cannot mount on {asked}: in {self._request.target} {where} {found}",
                "name another place inside the tree",
            )
        if not place.missing:
            return "no"
        if place.covered or self._is_overlay:
            return kind
        self._missing.setdefault(place.existing, []).append((place.path, kind))
        return "no"

    def _requested_above(
        self, path: GuestPath
    ) -> TmpfsRequest | BindRequest | OverlayRequest | None:
        """Return the lowest mount that was asked for strictly above ``path``."""
        above = path.rpartition("/")[0]
        while above:
            if above in self._requested:
                return self._requested[GuestPath(above)]
            above = above.rpartition("/")[0]
        return None

    def _scaffolds(self) -> list[Step]:
        """Return covers for directories that lack mount points, the outermost first."""
        covers: list[Step] = []
        for directory in sorted(self._missing):
            covers.append(
                steps.Scaffold(directory, tuple(self._missing[directory]), self._ids.owner)
            )
            names = ", ".join(path for path, _ in self._missing[directory])
            self.notes.append(
                f"the tree has no {names}: {directory} is shown with it, and is read-only at its"
                " own level for this run"
            )
        return covers

    def _mount_proc(self) -> None:
        target = self._api("/proc")
        if self._host.proc_is_masked:
            self._add(steps.Bind(HostPath("/proc"), target, nodev=False))
            self.notes.append(
                "parts of /proc are masked here, so that the kernel grants no fresh one: the outer"
                " container's is shown instead, and ps lists its processes"
            )
        else:
            self._add(steps.Proc(target))
        names = self._host.proc_entries
        if self._ids.kind in ("identity", "nested"):  # root inside may have the host's number
            names = tuple(sorted({*names, *self._host.changeable_proc_entries}))
        for name in names:
            self._add(steps.ReadOnlyOver(GuestPath(f"{target}/{name}")))

    def _mount_sys(self) -> None:
        if self._host.privileged:
            self._add(steps.Sysfs(self._api("/sys")))
        else:
            self._add(steps.Bind(HostPath("/sys"), self._api("/sys"), read_only=True))

    def _mount_dev(self) -> None:
        dev, owner = self._api("/dev"), self._ids.owner
        self._add(steps.Tmpfs(dev, 0o755, owner, (("size", "1m"),), nodev=False))
        for name in self._host.devices:
            node = GuestPath(f"{dev}/{name}")
            if self._host.privileged:
                major, minor = _DEVICE_NUMBERS[name]
                self._add(steps.DeviceNode(node, major, minor, owner=owner))
            else:
                self._add(device_bind(HostPath(f"/dev/{name}"), node, "file", owner))
        for name, text in _DEVICE_LINKS:
            self._add(steps.Symlink(GuestPath(f"{dev}/{name}"), text, owner))
        for name in ("pts", "shm", "mqueue"):
            self._add(steps.Directory(GuestPath(f"{dev}/{name}"), 0o755, owner))
        self._add(
            steps.Devpts(GuestPath(f"{dev}/pts"), self._tty_gid(), owner),
            steps.Tmpfs(GuestPath(f"{dev}/shm"), 0o1777, owner, self._inodes),
        )

    def _tty_gid(self) -> int | None:
        if self._ids.outer is not None:
            return _TTY_GID if self._ids.outer.outside_gid(_TTY_GID) is not None else None
        return self._ids.inner.outside_gid(_TTY_GID)

    def _mount_temporary(self) -> None:
        run, owner = self._api("/run"), self._ids.owner
        self._add(
            steps.Tmpfs(run, 0o755, owner, self._inodes),
            steps.Directory(GuestPath(f"{run}/lock"), 0o1777, owner),
            steps.Directory(GuestPath(f"{run}/xbuild"), 0o755, owner),
            steps.Tmpfs(self._api("/tmp"), 0o1777, owner, self._inodes),
        )

    def interpreter_path(self, emulation: Emulation) -> GuestPath:
        """Return where an interpreter is seen inside."""
        return GuestPath(f"{self._api('/run')}/xbuild/qemu-{emulation.arch.name}")

    def _show_interpreter(self, emulation: Emulation) -> None:
        if emulation.way == "private" and emulation.interpreter is not None:
            self._add(
                steps.Bind(
                    emulation.interpreter.path,
                    self.interpreter_path(emulation),
                    read_only=True,
                    recursive=False,
                    create="file",
                    owner=self._ids.owner,
                )
            )

    def _show_native(self, native: Native) -> None:
        from xbuild.plan.native import native_notes, native_steps  # loaded before

        self._add(*native_steps(native, self._api("/run"), self._ids.owner))
        self.notes += native_notes(native)

    def _show_registered(self, emulations: tuple[Emulation, ...]) -> None:
        """Show a static interpreter wherever a host's entry without F makes the kernel look."""
        bare = [e for e in emulations if e.way == "host" and e.interpreter is not None]
        for emulation, place in zip(bare, self._guest.interpreters, strict=True):
            assert emulation.interpreter is not None
            create = self._create_if_missing(place, "file", place.path)
            source = emulation.interpreter.path
            self._add(
                steps.Bind(
                    source, place.path, True, recursive=False, create=create, owner=self._ids.owner
                )
            )

    def _name_hosts(self) -> None:
        owner = self._ids.owner
        content = self._host.hosts.rstrip("\n") + f"\n127.0.1.1\t{hostname_of(self._request)}\n"
        source = GuestPath(f"{self._api('/run')}/xbuild/hosts")
        place = self._guest.hosts
        if self._is_bare:
            self._add(steps.Directory(GuestPath("/etc"), 0o755, owner))
            self._add(steps.WriteFile(GuestPath("/etc/hosts"), content, owner))
        elif place is not None and not place.missing and stat.S_ISREG(place.mode):
            self._add(steps.WriteFile(source, content, owner), steps.Show(source, place.path))
        network, given = self._request.network, self._host.resolv_conf
        if network == "none" or (given is None and network != "private"):
            return
        place = self._guest.resolv_conf if not self._is_bare else _BARE_RESOLV_CONF
        if place is not None and place.missing[:1] == ("etc",) and not self._is_bare:
            return  # a tree without /etc, of static programs, asks nobody
        create = None if place is None else self._way_to_cover(place)
        if place is None or create is None:
            self.notes.append(
                "the tree has no file /etc/resolv.conf to cover: names will not resolve inside;"
                f" touch {self._request.target}/etc/resolv.conf once"
            )
            return
        if given is None or network == "private":
            from xbuild.plan.networks import NAMESERVER  # off the start path

            source = GuestPath(f"{self._api('/run')}/xbuild/resolv.conf")
            self._add(
                steps.WriteFile(source, f"nameserver {NAMESERVER}\n", owner),
                steps.Show(source, place.path, create, owner),
            )
            return
        self._add(
            steps.Bind(
                given,
                place.path,
                read_only=True,
                recursive=False,
                create=create,
                owner=owner,
            )
        )

    def _way_to_cover(self, place: Place) -> Create | None:
        """Return how a file comes to be at ``place`` for another to cover it; None: not at all."""
        if self._is_bare:
            return "file"
        if not place.missing:
            return "no" if stat.S_ISREG(place.mode) else None
        if place.existing in (self._api("/proc"), self._api("/sys")):
            return None
        is_ours = place.covered or (self._is_overlay and stat.S_ISDIR(place.mode))
        return "file" if is_ours else None

    def _mount_requested(self) -> None:
        """Mount what was asked for: what is above before what is below."""
        modes = self._guest.source_modes
        mounts: list[tuple[TmpfsRequest | BindRequest | OverlayRequest, Place, int]] = [
            *(
                (t, place, 0)
                for t, place in zip(self._request.tmpfs, self._guest.tmpfs, strict=True)
            ),
            *zip(self._request.binds, self._guest.binds, modes, strict=True),
            *(
                (o, place, 0)
                for o, place in zip(self._request.overlays, self._guest.overlays, strict=True)
            ),
        ]
        for mount, place, mode in sorted(mounts, key=lambda each: each[1].path.split("/")):
            if place.path in ("/", self._api("/dev"), self._api("/run")):
                raise UsageError(
                    f"Cannot mount on {mount.destination}: the container's own parts are there",
                    "name a place below it, such as --bind /dev/kvm",
                )
            if isinstance(mount, TmpfsRequest):
                self._tmpfs(mount, place)
            elif isinstance(mount, BindRequest):
                self._bind(mount, place, mode)
            else:
                self._overlay(mount, place)
            self._requested[place.path] = mount
        for place in self._guest.hidden:
            self._hide(place)

    def _tmpfs(self, tmpfs: TmpfsRequest, place: Place) -> None:
        create = self._create_if_missing(place, "directory", tmpfs.destination)
        options = (*(self._shifted(option) for option in tmpfs.options), *self._inodes)
        self._add(
            steps.Tmpfs(
                place.path,
                tmpfs.mode,
                self._ids.owner,
                options,
                create,
                noexec=tmpfs.noexec,
                read_only=tmpfs.read_only,
            )
        )

    def _shifted(self, option: tuple[str, str | None]) -> tuple[str, str | None]:
        """Return a tmpfs(5) option with the ids of the place where it is mounted."""
        key, value = option
        if key not in ("uid", "gid") or value is None or not value.isdigit():
            return option
        ids = self._ids.inner if self._ids.outer is None else self._ids.outer
        number = int(value)
        outside = ids.outside_uid(number) if key == "uid" else ids.outside_gid(number)
        if outside is None:
            raise UsageError(f"--tmpfs: {key} {number} is not mapped in this container")
        return key, str(outside if self._ids.outer is None else number)

    def _overlay(self, overlay: OverlayRequest, place: Place) -> None:
        from xbuild.plan.layering import overlay_step  # off the start path

        create = self._create_if_missing(place, "directory", overlay.destination)
        self._add(overlay_step(overlay, place, create, self._host, self._ids))

    def _hide(self, place: Place) -> None:
        from xbuild.plan.layers import Hide  # off the start path

        if place.missing and not (place.covered or self._requested_above(place.path)):
            raise TargetError(
                f"Cannot make {place.path} inaccessible: {self._request.target} has no such path",
                "name a file or directory of the tree",
            )
        self._add(Hide(place.path, stat.S_ISDIR(place.mode), self._ids.owner))

    def _bind(self, bind: BindRequest, place: Place, mode: int) -> None:
        kind: Create = "directory" if stat.S_ISDIR(mode) else "file"
        create = self._create_if_missing(place, kind, bind.destination)
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            self._add(device_bind(bind.source, place.path, create, self._ids.owner))
            return
        if has_devices(bind.source, self._host):
            self._add(directory_bind(bind.source, place.path, create, self._ids.owner))
            if not bind.read_only:
                self.notes.append(f"{bind.source} has devices: they can be used, and not replaced")
            return
        id_map = self._ids.tree if bind.idmap != "noidmap" else None
        can_idmap = self._host.can_idmap(bind.source, with_submounts=bind.recursive)
        if id_map is not None and not can_idmap:
            said = f"{bind.source} cannot be idmapped: its files belong to nobody inside"
            if bind.idmap == "idmap":
                raise HostUnable(said, "leave out the option idmap if that will do")
            id_map = None
            self.notes.append(said)
        if not bind.recursive and self._ids.outer is not None:
            self._check_whole(bind)
        self._add(
            steps.Bind(
                bind.source,
                place.path,
                bind.read_only,
                recursive=bind.recursive,
                id_map=id_map,
                create=create,
                owner=self._ids.owner,
                noexec=bind.noexec,
                nosuid=bind.nosuid,
            )
        )

    def _check_whole(self, bind: BindRequest) -> None:
        below = self._host.mounts_below(bind.source)
        if below:
            raise HostUnable(
                f"Cannot bind {bind.source} without what is mounted at {below[0].point}: only root"
                " may leave out a mount (mount_namespaces(7))",
                "leave out the option norbind, or run as root",
            )


def _no_overlay(target: HostPath, below: tuple[Mount, ...]) -> HostUnable:
    """Say that overlayfs refuses a lower layer with mounts that may not be left out (EINVAL)."""
    points = ", ".join(mount.point for mount in below[:3])
    return HostUnable(
        f"Cannot put an overlay over {target}: {points} is mounted in it, which only root may leave"
        " out",
        "unmount what is mounted in the tree, run without --ephemeral, or run as root",
    )


def hostname_of(request: Request) -> str:
    """Return the host name asked for, or one made from the tree's name (hostname(7))."""
    if request.hostname is not None:
        return request.hostname
    name = request.target.rstrip("/").rpartition("/")[2]
    letters = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "-" for c in name)
    return letters.strip("-")[:63] or "xbuild"
