"""The mounts of a container, in order: the tree, the kernel's own file systems, what was asked."""

from __future__ import annotations

from xbuild.errors import HostUnable
from xbuild.plan import steps
from xbuild.plan.filesystems import api_steps
from xbuild.plan.guest import API_DIRECTORIES, api_path
from xbuild.plan.naming import name_steps
from xbuild.plan.places import MountPoints
from xbuild.record import GuestPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.disk import Disk
    from xbuild.plan.emulate import Emulation
    from xbuild.plan.guest import Guest
    from xbuild.plan.host import Host, Mount
    from xbuild.plan.ids import Identities
    from xbuild.plan.native import Native
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Step
    from xbuild.record import HostPath

_API_FILESYSTEMS = frozenset(
    ("proc", "sysfs", "devtmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "binfmt_misc")
)


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
        self._points = MountPoints(request)
        self._inodes: tuple[tuple[str, str | None], ...] = ()
        if narrow_inodes:
            # 32-bit programs built without large file support fail on 64-bit inode numbers.
            self._inodes = (("inode32", None),)
        self.steps: list[Step] = []
        self.notes: list[str] = []

    def assemble(self, emulations: tuple[Emulation, ...], native: Native | None = None) -> None:
        """Put all steps in order."""
        request, host, guest, ids = self._request, self._host, self._guest, self._ids
        if request.persist is not None or request.volatile:
            self._mount_layered_root()
        elif self._disk is None:
            self._mount_root()
        else:
            self._mount_image(self._disk)
        at = len(self.steps)
        if self._disk is not None:
            self._mount_volumes(self._disk)
        for place, name in zip(guest.api, API_DIRECTORIES, strict=True):
            if self._points.create_if_missing(place, "directory", name) == "directory":
                self._add(steps.Directory(place.path, 0o755, ids.owner))
        self._take(api_steps(host, guest, ids, self._inodes))
        for emulation in emulations:
            self._show_interpreter(emulation)
        self._show_registered(emulations)
        self._take(name_steps(request, host, guest, self._points, ids.owner))
        if request.tmpfs or request.binds or request.overlays or guest.hidden:
            self._mount_asked()
        if native is not None:
            self._show_native(native)
        covers, notes = self._points.scaffolds(ids.owner)
        self.steps[at:at] = covers
        self.notes += notes

    def _add(self, *new: Step) -> None:
        self.steps.extend(new)

    def _take(self, decided: tuple[list[Step], list[str]]) -> None:
        self.steps += decided[0]
        self.notes += decided[1]

    @property
    def mqueue(self) -> GuestPath:
        """Where message queues are mounted."""
        return GuestPath(f"{api_path(self._guest, '/dev')}/mqueue")

    @property
    def sysfs(self) -> GuestPath:
        """Where sysfs is mounted."""
        return api_path(self._guest, "/sys")

    def _mount_root(self) -> None:
        request, ids = self._request, self._ids
        below = self._host.mounts_below(request.target)
        # An ordinary user may not copy a mount without those below it: mount_namespaces(7).
        recursive = bool(below) and ids.outer is not None
        if self._points.is_overlay:
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
        from xbuild.plan.layering import layered_root  # off the start path

        is_image = self._disk is not None
        self._add(layered_root(self._request, self._host, self._guest, self._ids, is_image))
        if not self._points.is_bare and self._host.mounts_below(self._request.target):
            self._mount_below()

    def _mount_image(self, disk: Disk) -> None:
        from xbuild.plan.disk import root_steps  # only for images

        self._add(*root_steps(disk, self._request.target, self._ids, self._points.is_overlay))
        self.notes += disk.notes

    def _mount_volumes(self, disk: Disk) -> None:
        """Show the image's other file systems where its fstab says."""
        from xbuild.plan.disk import volume_steps  # only for images

        self._take(volume_steps(disk, self._host, self._ids, self._points))

    def _mount_below(self) -> None:
        target, is_overlay = self._request.target, self._points.is_overlay
        for mount in self._host.mounts_below(target):
            place = GuestPath("/" + mount.point[len(target.rstrip("/")) + 1 :])
            if mount.filesystem in _API_FILESYSTEMS or self._is_covered(place):
                continue
            id_map = self._ids.tree if self._host.can_idmap(mount.point) else None
            read_only = self._request.read_only or is_overlay
            self._add(
                steps.Bind(
                    mount.point, place, read_only, recursive=False, id_map=id_map, is_real=True
                )
            )
            if is_overlay:
                self.notes.append(f"{place} is a mount of its own: read-only in this container")

    def _is_covered(self, place: GuestPath) -> bool:
        return any(f"{place}/".startswith(f"{each.path}/") for each in self._guest.api)

    def interpreter_path(self, emulation: Emulation) -> GuestPath:
        """Return where an interpreter is seen inside."""
        return GuestPath(f"{api_path(self._guest, '/run')}/xbuild/qemu-{emulation.arch.name}")

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

    def _show_registered(self, emulations: tuple[Emulation, ...]) -> None:
        """Show a static interpreter wherever a host's entry without F makes the kernel look."""
        bare = [e for e in emulations if e.way == "host" and e.interpreter is not None]
        for emulation, place in zip(bare, self._guest.interpreters, strict=True):
            assert emulation.interpreter is not None
            create = self._points.create_if_missing(place, "file", place.path)
            source = emulation.interpreter.path
            self._add(
                steps.Bind(
                    source, place.path, True, recursive=False, create=create, owner=self._ids.owner
                )
            )

    def _mount_asked(self) -> None:
        from xbuild.plan.asked import AskedMounts  # off the start path

        asked = AskedMounts(self._host, self._guest, self._ids, self._points, self._inodes)
        asked.mount(self._request)
        self._take((asked.steps, asked.notes))

    def _show_native(self, native: Native) -> None:
        from xbuild.plan.native import native_notes, native_steps  # loaded before

        self._add(*native_steps(native, api_path(self._guest, "/run"), self._ids.owner))
        self.notes += native_notes(native)


def _no_overlay(target: HostPath, below: tuple[Mount, ...]) -> HostUnable:
    """Say that overlayfs refuses a lower layer with mounts that may not be left out (EINVAL)."""
    points = ", ".join(mount.point for mount in below[:3])
    return HostUnable(
        f"Cannot put an overlay over {target}: {points} is mounted in it, which only root may leave"
        " out",
        "unmount what is mounted in the tree, run without --ephemeral, or run as root",
    )
