"""Mount steps of a plan, each one function: new mounts are made detached, then attached by fd."""

from __future__ import annotations

import os
import stat

from xbuild.sandbox import _linux
from xbuild.sandbox.stage import (
    Stage,
    create_mount_point,
    make_directory,
    make_file,
    make_missing,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan import steps
    from xbuild.record import GuestPath, HostPath

BASIC = _linux.MOUNT_ATTR_NOSUID | _linux.MOUNT_ATTR_NODEV
PLAIN_DATA = BASIC | _linux.MOUNT_ATTR_NOEXEC
_SCAFFOLD_LIMIT = 4096  # entries; each one costs a mount


def new_mount(
    filesystem: str,
    options: tuple[tuple[str, str | None], ...],
    attributes: int,
    *,
    source: str = "",
) -> int:
    """Return a detached mount of a fresh superblock; the caller owns the descriptor.

    Without ``source``, a device, it is named for its type, as mount -t proc proc shows it.
    """
    context = _linux.fsopen(filesystem)
    try:
        _linux.fsconfig_string(context, "source", source or filesystem)
        for key, value in options:
            if value is None:
                _linux.fsconfig_flag(context, key)
            else:
                _linux.fsconfig_string(context, key, value)
        _linux.fsconfig_create(context, label=filesystem)
        return _linux.fsmount(context, attributes, label=filesystem)
    finally:
        os.close(context)


def attach(stage: Stage, mount: int, target: GuestPath) -> None:
    """Attach a detached mount in the view and close its descriptor."""
    place = stage.open_target(target)
    try:
        _linux.move_mount(mount, place, label=target)
    finally:
        os.close(place)
        os.close(mount)


def copy_tree(path: HostPath, *, recursive: bool, resolve: int = 0) -> int:
    """Return a detached copy of the mount at ``path``, found under RESOLVE_* restrictions."""
    place = _linux.openat2(_linux.AT_FDCWD, path, flags=os.O_PATH, resolve=resolve)
    try:
        return copy_place(place, recursive=recursive, label=path)
    finally:
        os.close(place)


def copy_place(place: int, *, recursive: bool, label: str) -> int:
    """Return a detached copy of the mount at an O_PATH descriptor."""
    flags = _linux.OPEN_TREE_CLONE | (_linux.AT_RECURSIVE if recursive else 0)
    return _linux.open_tree(place, flags, label=label)


def restrict(
    stage: Stage,
    mount: int,
    *,
    attributes: int,
    id_map: steps.IdMap | None,
    recursive: bool,
    label: str,
) -> None:
    """Add attributes to a detached mount, and show its files with other ids."""
    # One call for each: a refused id map is then told apart from a refused attribute.
    if attributes:
        _linux.mount_setattr(mount, set_=attributes, recursive=recursive, label=label)
    if id_map is not None:
        _linux.mount_setattr(
            mount,
            set_=_linux.MOUNT_ATTR_IDMAP,
            userns_fd=stage.user_namespaces[id_map],
            recursive=recursive,
            label=f"{label} (idmapped)",
        )


def mount_tree(stage: Stage, step: steps.MountTree) -> None:
    """Attach the tree in this private namespace, and make it the view."""
    attributes = _linux.MOUNT_ATTR_NODEV | (_linux.MOUNT_ATTR_RDONLY if step.read_only else 0)
    tree = _restricted_copy(
        stage, step, step.source, attributes=attributes, resolve=_linux.RESOLVE_NO_SYMLINKS
    )
    become_view(stage, tree)


def _restricted_copy(
    stage: Stage,
    step: steps.MountTree | steps.MountOverlay | steps.Bind,
    path: HostPath,
    *,
    attributes: int,
    resolve: int,
) -> int:
    """Return a detached mount of what a step shows, with its ids; the caller owns it."""
    if step.volume is None:
        mount = copy_tree(path, recursive=step.recursive, resolve=resolve)
    else:
        from xbuild.sandbox.disks import take_volume  # loaded before, by the steps that mounted it

        mount = take_volume(stage, step.volume)
    restrict(
        stage,
        mount,
        attributes=attributes,
        id_map=step.id_map,
        recursive=step.recursive,
        label=path,
    )
    return mount


def mount_overlay(stage: Stage, step: steps.MountOverlay) -> None:
    """Attach an overlay of the tree, or of a volume, and a detached tmpfs."""
    if step.target != "/":
        create_mount_point(stage, step.target, step.create, step.owner)
    lower = _restricted_copy(
        stage,
        step,
        step.lower,
        attributes=_linux.MOUNT_ATTR_NODEV,
        resolve=_linux.RESOLVE_NO_SYMLINKS,
    )
    changes = new_mount("tmpfs", _sized(step.size), BASIC)
    status = os.stat(lower)
    mode = stat.S_IMODE(status.st_mode)
    for name in ("upper", "work"):
        make_directory(changes, name, mode, step.owner)
    # The view's root shows the upper directory's attributes: the tree's own, where permitted.
    os.chmod("upper", mode, dir_fd=changes)
    options: tuple[tuple[str, str | None], ...] = (
        ("lowerdir", f"/proc/self/fd/{lower}"),
        ("upperdir", f"/proc/self/fd/{changes}/upper"),
        ("workdir", f"/proc/self/fd/{changes}/work"),
    )
    if step.in_user_namespace:
        options += (("userxattr", None),)
    overlay = new_overlay(stage, options, (lower, changes))
    os.close(lower)
    os.close(changes)
    if step.target == "/":
        become_view(stage, overlay)
    else:
        attach(stage, overlay, step.target)


def new_overlay(
    stage: Stage, options: tuple[tuple[str, str | None], ...], layers: tuple[int, ...]
) -> int:
    """Return a detached overlay; ``options`` name its ``layers`` by their descriptors.

    Linux before 6.15 takes layers from the mount namespace of the caller alone (clone_private_mount
    in fs/namespace.c): there they are attached to it for that moment.
    """
    try:
        return new_mount("overlay", options, _linux.MOUNT_ATTR_NODEV)
    except OSError as error:
        if error.errno != _linux.EINVAL or not stage.has_own_mounts:
            raise
    attached: list[int] = []
    # Over the root: lookups that begin at "/" still start below.
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for layer in layers:
            _linux.move_mount(layer, root, label="overlay")
            attached.append(layer)
        return new_mount("overlay", options, _linux.MOUNT_ATTR_NODEV)
    finally:
        os.close(root)
        for layer in reversed(attached):
            _linux.umount2(f"/proc/self/fd/{layer}", _linux.MNT_DETACH)


def _sized(size: str | None) -> tuple[tuple[str, str | None], ...]:
    return () if size is None else (("size", size),)


def become_view(stage: Stage, mount: int) -> None:
    """Attach a detached mount over the root of this private namespace: the container's view."""
    # Over the root: lookups that begin at "/" still start below it, in the host's tree, so that
    # the sources of binds are found wherever they are, even inside the tree (path_resolution(7)).
    if not stage.has_own_mounts:
        raise AssertionError("the view would cover the host's own root directory")
    target = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _linux.move_mount(mount, target, label="/")
    os.close(target)
    stage.view = mount
    stage.layers += 1


def scaffold(stage: Stage, step: steps.Scaffold) -> None:
    """Cover a directory by a tmpfs with the same entries and the missing mount points."""
    beneath = stage.open_directory(step.directory)
    status = os.fstat(beneath)
    names = os.listdir(beneath)
    if len(names) > _SCAFFOLD_LIMIT:
        raise OSError(_linux.E2BIG, os.strerror(_linux.E2BIG), step.directory)
    options = (("mode", f"{stat.S_IMODE(status.st_mode):o}"), *_owned(step.owner))
    cover = new_mount("tmpfs", options, BASIC)
    _cover(stage, cover, step.directory)
    for name in names:
        _show_entry(beneath, cover, name, step.owner)
    for path, kind in step.missing:
        make_missing(stage, path, kind, step.owner)
    _linux.mount_setattr(
        cover, set_=_linux.MOUNT_ATTR_RDONLY, recursive=False, label=step.directory
    )
    os.close(beneath)
    if cover != stage.view:
        os.close(cover)


def _cover(stage: Stage, cover: int, directory: GuestPath) -> None:
    place = stage.open_target(directory)
    _linux.move_mount(cover, place, label=directory)
    os.close(place)
    if directory == "/":
        os.close(stage.view)
        stage.view = cover
        stage.layers += 1


def _show_entry(beneath: int, cover: int, name: str, owner: steps.Owner) -> None:
    # Opened once: a directory that becomes a link between two looks would lead to the host's.
    source = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=beneath)
    mode = os.fstat(source).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink("", dir_fd=source), name, dir_fd=cover)
        os.chown(name, owner.uid, owner.gid, dir_fd=cover, follow_symlinks=False)
        os.close(source)
        return
    if stat.S_ISDIR(mode):
        make_directory(cover, name, 0o755, owner)
    else:
        make_file(cover, name, b"", owner)
    entry = copy_place(source, recursive=True, label=name)
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=cover)
    _linux.move_mount(entry, place, label=name)
    for fd in (source, place, entry):
        os.close(fd)


def _owned(owner: steps.Owner) -> tuple[tuple[str, str | None], ...]:
    return (("uid", str(owner.uid)), ("gid", str(owner.gid)))


def tmpfs(stage: Stage, step: steps.Tmpfs) -> None:
    """Mount a fresh tmpfs."""
    create_mount_point(stage, step.target, step.create, step.owner)
    options = (("mode", f"{step.mode:o}"), *_owned(step.owner), *step.options)
    attributes = BASIC if step.nodev else _linux.MOUNT_ATTR_NOSUID
    attributes |= _linux.MOUNT_ATTR_NOEXEC if step.noexec else 0
    attributes |= _linux.MOUNT_ATTR_RDONLY if step.read_only else 0
    attach(stage, new_mount("tmpfs", options, attributes), step.target)


def bind(stage: Stage, step: steps.Bind) -> None:
    """Show a file or directory of the host."""
    create_mount_point(stage, step.target, step.create, step.owner)
    resolve = _linux.RESOLVE_NO_SYMLINKS if step.is_real else 0
    if step.make_source:
        _make_directories(step.source)
    # A volume of the image is part of the tree: its set-user-ID programs keep working.
    attributes = _linux.MOUNT_ATTR_NOSUID if step.volume is None and step.nosuid else 0
    attributes |= _linux.MOUNT_ATTR_NOEXEC if step.noexec else 0
    attributes |= _linux.MOUNT_ATTR_RDONLY if step.read_only else 0
    attributes |= _linux.MOUNT_ATTR_NODEV if step.nodev else 0
    copy = _restricted_copy(stage, step, step.source, attributes=attributes, resolve=resolve)
    attach(stage, copy, step.target)


def _make_directories(path: HostPath) -> None:
    before = os.umask(0o022)  # the guest's is 0 until its command has one
    try:
        os.makedirs(path, exist_ok=True)
    finally:
        os.umask(before)


def show(stage: Stage, step: steps.Show) -> None:
    """Bind a file of the view at another place, read-only."""
    create_mount_point(stage, step.target, step.create, step.owner)
    _bind_within(stage, step.source, step.target)


def read_only_over(stage: Stage, step: steps.ReadOnlyOver) -> None:
    """Bind a place of the view onto itself, read-only."""
    _bind_within(stage, step.target, step.target)


def _bind_within(stage: Stage, source: GuestPath, target: GuestPath) -> None:
    place = stage.open_target(source)
    copy = copy_place(place, recursive=True, label=source)
    os.close(place)
    _linux.mount_setattr(copy, set_=_linux.MOUNT_ATTR_RDONLY, recursive=True, label=target)
    attach(stage, copy, target)


def proc(stage: Stage, step: steps.Proc) -> None:
    """Mount a proc of this PID namespace, or of the guest's own within."""
    guest = stage.guest_init
    mount = new_mount("proc", (), PLAIN_DATA) if guest is None else guest.new_proc()
    attach(stage, mount, step.target)


def sysfs(stage: Stage, step: steps.Sysfs) -> None:
    """Mount a sysfs of this network namespace, read-only."""
    mount = new_mount("sysfs", (), PLAIN_DATA | _linux.MOUNT_ATTR_RDONLY)
    kept = [(path, _copy_target(stage, path)) for path in step.kept]
    attach(stage, mount, step.target)
    for path, copy in kept:
        attach(stage, copy, path)


def _copy_target(stage: Stage, path: GuestPath) -> int:
    place = stage.open_target(path)
    try:
        return copy_place(place, recursive=False, label=path)
    finally:
        os.close(place)


def mqueue(stage: Stage, step: steps.Mqueue) -> None:
    """Mount the message queues of this IPC namespace."""
    attach(stage, new_mount("mqueue", (), PLAIN_DATA), step.target)


def devpts(stage: Stage, step: steps.Devpts) -> None:
    """Mount an own instance of pseudo-terminals."""
    options: tuple[tuple[str, str | None], ...] = (("mode", "620"), ("ptmxmode", "666"))
    if step.gid is not None:
        options += (("gid", str(step.gid)),)
    mount = new_mount("devpts", options, _linux.MOUNT_ATTR_NOSUID | _linux.MOUNT_ATTR_NOEXEC)
    # The option uid= is for terminals: not for the directory itself.
    os.chown(".", step.owner.uid, step.owner.gid, dir_fd=mount)
    attach(stage, mount, step.target)


def pivot(stage: Stage) -> None:
    """Make the view the root directory, and let go of the host's."""
    os.fchdir(stage.view)
    _linux.pivot_root(".", ".")
    # The old root now lies on top of the new one at ".": pivot_root(2), NOTES. On it in turn lie
    # the view's lower layers, and each call takes but the topmost: one left over shows at "/..".
    for _ in range(stage.layers):
        _linux.umount2(".", _linux.MNT_DETACH)
    os.chdir("/")
    stage.look_from_here()
