"""Mount steps of overlays, covered places and a root of which little is kept: see plan.layers.

Off the start path: loaded where a plan has such a step, before the root is switched.
"""

from __future__ import annotations

import os
import stat

from xbuild.plan.layers import TREE, UPPER, WORK, Hide, MountPersistent, MountVolatile, OverlayAt
from xbuild.record import assert_never
from xbuild.sandbox import _linux, mounts
from xbuild.sandbox._fsids import set_filesystem_ids
from xbuild.sandbox.filelock import lock_descriptor
from xbuild.sandbox.stage import create_mount_point, make_directory, make_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.ids import IdMap, Owner
    from xbuild.record import HostPath
    from xbuild.sandbox.stage import Stage

# Nothing but what every kernel since 5.11 can read: no redirects, no metadata without data, and no
# id of the file system written to it.
_PLAIN: tuple[tuple[str, str | None], ...] = (
    ("redirect_dir", "nofollow"),
    ("metacopy", "off"),
    ("index", "off"),
)
_NODEV = _linux.MOUNT_ATTR_NODEV


def apply_layer(stage: Stage, step: OverlayAt | MountPersistent | MountVolatile | Hide) -> None:
    """Do one such step. Raises OSError."""
    match step:
        case OverlayAt():
            _overlay_at(stage, step)
        case MountPersistent():
            _persistent(stage, step)
        case MountVolatile():
            _volatile(stage, step)
        case Hide():
            _hide(stage, step)
        case _:
            assert_never(step)


def _layer(stage: Stage, path: HostPath, id_map: IdMap | None, *, recursive: bool = False) -> int:
    """Return a detached copy of the mount at ``path``, with the container's ids."""
    copy = mounts.copy_tree(path, recursive=recursive)
    mounts.restrict(stage, copy, attributes=_NODEV, id_map=id_map, recursive=recursive, label=path)
    return copy


def _overlay(
    stage: Stage,
    lowers: tuple[int, ...],
    writable: tuple[int, str, str] | None,
    *,
    maker: Owner,
    in_user_namespace: bool,
) -> int:
    """Return a detached overlay of ``lowers``, the topmost first.

    ``writable`` is a layer, and the names in it of what takes changes and of overlayfs's own.
    """
    paths = ":".join(f"/proc/self/fd/{fd}" for fd in lowers)
    options: tuple[tuple[str, str | None], ...] = (("lowerdir", paths),)
    if writable is not None:
        fd, upper, work = writable
        options += (
            ("upperdir", f"/proc/self/fd/{fd}/{_escaped(upper)}"),
            ("workdir", f"/proc/self/fd/{fd}/{_escaped(work)}"),
        )
    options += (("userxattr", None),) if in_user_namespace else _PLAIN
    # Overlayfs works with the rights of its maker, who must have an id that the idmapped layer has.
    if maker.uid:
        set_filesystem_ids(maker.uid, maker.gid)
    layers = (*lowers, *(() if writable is None else writable[:1]))
    overlay = mounts.new_overlay(stage, options, layers)
    if maker.uid:
        set_filesystem_ids(0, 0)
    if writable is not None and os.statvfs(overlay).f_flag & os.ST_RDONLY:
        # Where it cannot work it does not say so, but allows no changes.
        raise OSError(_linux.EROFS, os.strerror(_linux.EROFS), "overlay")
    for each in layers:
        os.close(each)
    return overlay


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _overlay_at(stage: Stage, step: OverlayAt) -> None:
    create_mount_point(stage, step.target, step.create, step.owner)
    lowers = [_layer(stage, path, step.id_map) for path in reversed(step.lowers)]
    writable = None
    if step.upper is not None and step.work is not None:
        _make_like(step.upper, step.work, 0o700)
        _lock(stage, step.work)
        directory, upper = os.path.split(step.upper.rstrip("/"))
        layer = _layer(stage, directory or "/", step.id_map)  # type: ignore[arg-type]  # absolute
        writable = (layer, upper, os.path.basename(step.work))
    in_user_namespace = step.in_user_namespace
    maker = step.owner
    overlay = _overlay(
        stage, tuple(lowers), writable, maker=maker, in_user_namespace=in_user_namespace
    )
    _linux.mount_setattr(overlay, set_=_linux.MOUNT_ATTR_NOSUID, recursive=False, label=step.target)
    mounts.attach(stage, overlay, step.target)


def _persistent(stage: Stage, step: MountPersistent) -> None:
    root = os.stat(step.lower)
    _make_like(step.lower, step.directory, 0o700)
    _lock(stage, step.directory)
    _make_like(step.lower, f"{step.directory}/{UPPER}", stat.S_IMODE(root.st_mode))
    _make_like(step.lower, f"{step.directory}/{WORK}", 0o700)
    _remember(step.lower, f"{step.directory}/{TREE}")
    lower = _layer(stage, step.lower, step.id_map, recursive=step.recursive)
    writable = (_layer(stage, step.directory, step.id_map), UPPER, WORK)
    in_user_namespace = step.in_user_namespace
    maker = step.owner
    overlay = _overlay(stage, (lower,), writable, maker=maker, in_user_namespace=in_user_namespace)
    mounts.become_view(stage, overlay)


def _make_like(pattern: str, path: str, mode: int) -> None:
    """Make a directory that belongs to whom ``pattern`` belongs; one that exists is left."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    owner = os.stat(pattern)
    os.chown(path, owner.st_uid, owner.st_gid)
    os.chmod(path, mode)


def _remember(tree: str, path: str) -> None:
    """Say whose changes a directory keeps; the plan has checked that it is no other tree's."""
    try:
        os.symlink(tree, path)
    except FileExistsError:
        return


def _lock(stage: Stage, path: str) -> None:
    """Lock a directory for as long as process 1 lives. Raises BlockingIOError where it is taken."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock_descriptor(fd, exclusive=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    stage.kept.add(fd)


def _volatile(stage: Stage, step: MountVolatile) -> None:
    owner = (("uid", str(step.owner.uid)), ("gid", str(step.owner.gid)))
    root = mounts.new_mount("tmpfs", (("mode", "755"), *owner), mounts.BASIC)
    make_directory(root, "usr", 0o755, step.owner)
    for name, text in step.links:
        os.symlink(text, name, dir_fd=root)
        os.chown(name, step.owner.uid, step.owner.gid, dir_fd=root, follow_symlinks=False)
    usr = mounts.copy_tree(
        f"{step.source}/usr",  # type: ignore[arg-type]  # below a host path
        recursive=True,
        resolve=_linux.RESOLVE_NO_SYMLINKS,
    )
    mounts.restrict(
        stage,
        usr,
        attributes=_NODEV | _linux.MOUNT_ATTR_RDONLY,
        id_map=step.id_map,
        recursive=True,
        label=f"{step.source}/usr",
    )
    mounts.become_view(stage, root)
    place = os.open("usr", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    _linux.move_mount(usr, place, label="/usr")
    os.close(place)
    os.close(usr)


def _hide(stage: Stage, step: Hide) -> None:
    options = (("mode", "0"), ("uid", str(step.owner.uid)), ("gid", str(step.owner.gid)))
    empty = mounts.new_mount("tmpfs", options, mounts.BASIC | _linux.MOUNT_ATTR_NOEXEC)
    if not step.is_directory:
        make_file(empty, "empty", b"", step.owner)
        os.chmod("empty", 0, dir_fd=empty)
    _linux.mount_setattr(empty, set_=_linux.MOUNT_ATTR_RDONLY, recursive=False, label=step.target)
    if step.is_directory:
        mounts.attach(stage, empty, step.target)
        return
    place = os.open("empty", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=empty)
    mounts.attach(stage, mounts.copy_place(place, recursive=False, label="empty"), step.target)
    os.close(place)
    os.close(empty)
