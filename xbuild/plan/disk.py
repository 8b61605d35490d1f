"""The disk image of a run: what of it is attached, checked and mounted, and the steps for that.

Off the start path: loaded where a plan is made for an image.
"""

from __future__ import annotations

from xbuild.plan import steps
from xbuild.record import GuestPath, HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.guest import Place
    from xbuild.plan.host import Host
    from xbuild.plan.ids import Identities
    from xbuild.plan.places import MountPoints
    from xbuild.plan.steps import Create, IdMap, Step

_REPAIRED = 1  # e2fsck(8), fsck.fat(8), fsck.f2fs(8): exit status where errors were corrected
_SAY_REPAIRED = frozenset(("ext4", "vfat", "f2fs"))
_REPAIRED_CLEAN = frozenset(("xfs",))  # xfs_repair(8) refuses one whose journal is not empty
_NO_LOWER = frozenset(("vfat", "exfat", "ntfs3"))  # names without case: fs/overlayfs/params.c


class Volume(Record):
    """A file system to be mounted: a partition, or a subvolume of one (btrfs).

    ``offset`` and ``size`` of the partition are in bytes, ``options`` those of the mount. ``check``
    is the program that repairs it beforehand, ``server`` the one that serves it through FUSE,
    where that is not the kernel's own driver.
    """

    partition: int
    offset: int
    size: int
    filesystem: str
    subvolume: str | None = None
    options: tuple[tuple[str, str | None], ...] = ()
    read_only: bool = False
    check: tuple[str, ...] = ()
    server: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name that the steps know it by."""
        return f"{self.partition}:{self.subvolume}" if self.subvolume else str(self.partition)


class Seat(Record):
    """A volume that fstab wants mounted at ``place``, which it calls ``target``."""

    volume: Volume
    place: Place
    target: GuestPath


class Disk(Record):
    """An image as it was found. ``is_exclusive``: this run may write to it.

    ``seats`` are in the order of mounting; ``closed`` are mount points that stay read-only, for
    what belongs there cannot be mounted. ``descriptor`` is that of the file without a name which
    a compressed image was unpacked to. ``unmounted`` are file systems that are checked alone.
    """

    image: HostPath
    size: int
    mtime_ns: int
    is_exclusive: bool
    root: Volume
    seats: tuple[Seat, ...] = ()
    closed: tuple[GuestPath, ...] = ()
    notes: tuple[str, ...] = ()
    descriptor: int | None = None
    unmounted: tuple[Volume, ...] = ()

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """All that is mounted, the root first."""
        return (self.root, *(seat.volume for seat in self.seats))

    @property
    def is_served(self) -> bool:
        """Whether it is used through FUSE, from outside of the container's PID namespace."""
        return bool(self.root.server)


def open_steps(disk: Disk) -> list[Step]:
    """Return the steps that make every volume of an image available."""
    found: list[Step] = [
        steps.OpenImage(disk.image, disk.is_exclusive, disk.size, disk.mtime_ns, disk.descriptor),
    ]
    attached: set[int] = set()
    for volume in disk.unmounted:
        found += _attach(volume, read_only=False)
    for volume in disk.volumes:
        if volume.server:
            found += _serve(volume)
            continue
        if volume.partition not in attached:
            attached.add(volume.partition)
            found += _attach(volume, read_only=not disk.is_exclusive)
        found.append(_mount(volume))
    return found


def _attach(volume: Volume, *, read_only: bool) -> list[Step]:
    number = volume.partition
    found: list[Step] = [steps.AttachLoop(number, volume.offset, volume.size, read_only)]
    if volume.check:
        found.append(check_step(volume))
    return found


def check_step(volume: Volume, offset: int | None = None) -> steps.CheckFilesystem:
    """Return the step that checks a volume: see CheckFilesystem."""
    accepted = (0, _REPAIRED) if volume.filesystem in _SAY_REPAIRED else (0,)
    replay = volume.filesystem if volume.filesystem in _REPAIRED_CLEAN else ""
    return steps.CheckFilesystem(volume.partition, volume.check, offset, accepted, replay)


def _serve(volume: Volume) -> list[Step]:
    number = volume.partition
    found: list[Step] = []
    if volume.check:
        found.append(check_step(volume, volume.offset))
    found.append(
        steps.ServeFilesystem(volume.name, number, volume.offset, volume.server, volume.read_only)
    )
    return found


def _mount(volume: Volume) -> Step:
    return steps.MountFilesystem(
        volume.name, volume.partition, volume.filesystem, volume.options, volume.read_only
    )


def root_steps(disk: Disk, image: HostPath, ids: Identities, is_overlay: bool) -> list[Step]:
    """Return the steps that make the root volume the container's root."""
    # What is served was opened before process 1 was there.
    found: list[Step] = [] if disk.is_served else open_steps(disk)
    volume = disk.root.name
    if is_overlay:
        in_user_namespace = ids.outer is not None
        found.append(
            steps.MountOverlay(image, False, ids.tree, ids.owner, in_user_namespace, volume=volume)
        )
    else:
        found.append(steps.MountTree(image, disk.root.read_only, False, ids.tree, volume))
    return found


def volume_steps(
    disk: Disk, host: Host, ids: Identities, points: MountPoints
) -> tuple[list[Step], list[str]]:
    """Return the steps that show the other volumes where fstab says, and notes. Raises TargetError.

    Mount points whose own cannot be mounted are closed.
    """
    found: list[Step] = []
    notes: list[str] = []
    for seat in disk.seats:
        create = points.create_if_missing(seat.place, "directory", seat.target)
        id_map = ids.tree if host.can_idmap_type(seat.volume.filesystem) else None
        step, note = _show_volume(
            disk, seat, create, ids, id_map=id_map, is_ephemeral=points.is_overlay
        )
        found.append(step)
        notes += [note] if note else []
    return [*found, *(steps.ReadOnlyOver(path) for path in disk.closed)], notes


def _show_volume(
    disk: Disk,
    seat: Seat,
    create: Create,
    ids: Identities,
    *,
    id_map: IdMap | None,
    is_ephemeral: bool,
) -> tuple[Step, str]:
    """Return the step that shows a volume where fstab says, and a note on what it is not, or ""."""
    kind, path = seat.volume.filesystem, seat.place.path
    if is_ephemeral and kind not in _NO_LOWER:
        overlay = steps.MountOverlay(
            disk.image,
            id_map=id_map,
            owner=ids.owner,
            in_user_namespace=ids.outer is not None,
            volume=seat.volume.name,
            target=path,
            create=create,
        )
        return overlay, ""
    bind = steps.Bind(
        disk.image,
        path,
        seat.volume.read_only,
        recursive=False,
        id_map=id_map,
        create=create,
        owner=ids.owner,
        volume=seat.volume.name,
    )
    text = f"{seat.target} is read-only in this run: {kind} cannot lie below an overlay"
    return bind, text if is_ephemeral else ""
