"""The mounts that were asked for: binds, tmpfs, overlays and covered places, in order.

Off the start path: loaded where there are any.
"""

from __future__ import annotations

import stat

from xbuild.errors import HostUnable, TargetError, UsageError
from xbuild.plan import steps
from xbuild.plan.devices import device_bind, directory_bind, has_devices
from xbuild.plan.guest import api_path
from xbuild.plan.request import BindRequest, TmpfsRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.guest import Guest, Place
    from xbuild.plan.host import Host
    from xbuild.plan.ids import Identities
    from xbuild.plan.places import MountPoints
    from xbuild.plan.request import OverlayRequest, Request
    from xbuild.plan.steps import Create, Step


class AskedMounts:
    """Collects the steps of all mounts that a request names, and notes on them.

    ``inodes`` are options of each tmpfs(5). Raises UsageError, TargetError, HostUnable.
    """

    def __init__(
        self,
        host: Host,
        guest: Guest,
        ids: Identities,
        points: MountPoints,
        inodes: tuple[tuple[str, str | None], ...],
    ) -> None:
        self._host = host
        self._guest = guest
        self._ids = ids
        self._points = points
        self._inodes = inodes
        self.steps: list[Step] = []
        self.notes: list[str] = []

    def mount(self, request: Request) -> None:
        """Decide on all: what is above before what is below."""
        modes = self._guest.source_modes
        mounts: list[tuple[TmpfsRequest | BindRequest | OverlayRequest, Place, int]] = [
            *((t, place, 0) for t, place in zip(request.tmpfs, self._guest.tmpfs, strict=True)),
            *zip(request.binds, self._guest.binds, modes, strict=True),
            *(
                (o, place, 0)
                for o, place in zip(request.overlays, self._guest.overlays, strict=True)
            ),
        ]
        for mount, place, mode in sorted(mounts, key=lambda each: each[1].path.split("/")):
            if place.path in ("/", api_path(self._guest, "/dev"), api_path(self._guest, "/run")):
                raise UsageError(
                    f"Cannot mount on {mount.destination}: the container's own parts are there",
                    "name a place below it, such as --bind /dev/kvm",
                )
            if isinstance(mount, BindRequest) and mount.only_existing and place.missing:
                continue
            if isinstance(mount, TmpfsRequest):
                self._tmpfs(mount, place)
            elif isinstance(mount, BindRequest):
                self._bind(mount, place, mode)
            else:
                self._overlay(mount, place)
            self._points.add(place.path, mount)
        for place in self._guest.hidden:
            self._hide(place, request)

    def _tmpfs(self, tmpfs: TmpfsRequest, place: Place) -> None:
        create = self._points.create_if_missing(place, "directory", tmpfs.destination)
        options = (*(self._shifted(option) for option in tmpfs.options), *self._inodes)
        self.steps.append(
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
            raise UsageError(
                f"--tmpfs: {key} {number} is not mapped in this container",
                "xbuild run --dry-run shows which ids are mapped; subuid(5) grants more",
            )
        return key, str(outside if self._ids.outer is None else number)

    def _overlay(self, overlay: OverlayRequest, place: Place) -> None:
        from xbuild.plan.layering import overlay_step  # off the start path

        create = self._points.create_if_missing(place, "directory", overlay.destination)
        self.steps.append(overlay_step(overlay, place, create, self._host, self._ids))

    def _hide(self, place: Place, request: Request) -> None:
        from xbuild.plan.layers import Hide  # off the start path

        if place.missing and not (place.covered or self._points.requested_above(place.path)):
            raise TargetError(
                f"Cannot make {place.path} inaccessible: {request.target} has no such path",
                "name a file or directory of the tree",
            )
        self.steps.append(Hide(place.path, stat.S_ISDIR(place.mode), self._ids.owner))

    def _bind(self, bind: BindRequest, place: Place, mode: int) -> None:
        kind: Create = "directory" if stat.S_ISDIR(mode) else "file"
        create = self._points.create_if_missing(place, kind, bind.destination)
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            self.steps.append(device_bind(bind.source, place.path, create, self._ids.owner))
            return
        if has_devices(bind.source, self._host):
            self.steps.append(directory_bind(bind.source, place.path, create, self._ids.owner))
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
        self.steps.append(
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
                make_source=bind.make_source,
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
