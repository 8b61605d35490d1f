"""Deciding on mounts beyond binds and tmpfs: see ``layers``.

Off the start path: loaded where one of their options is used.
"""

from __future__ import annotations

import os

from xbuild.errors import HostUnable, UsageError
from xbuild.plan.layers import TREE, MountPersistent, MountVolatile, OverlayAt
from xbuild.record import HostPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.guest import Guest, Place
    from xbuild.plan.host import Host
    from xbuild.plan.ids import Identities
    from xbuild.plan.layers import Create
    from xbuild.plan.request import OverlayRequest, Request


def work_directory(upper: HostPath) -> HostPath:
    """Return where overlayfs keeps what it needs beside a directory that takes changes."""
    directory, name = os.path.split(upper.rstrip("/"))
    return HostPath(f"{directory}/.{name}.xbuild-work")


def overlay_step(
    overlay: OverlayRequest, place: Place, create: Create, host: Host, ids: Identities
) -> OverlayAt:
    """Decide how an overlay that was asked for is mounted. Raises HostUnable."""
    layers = (*overlay.lowers, *(() if overlay.upper is None else (overlay.upper,)))
    for layer in layers:
        below = host.mounts_below(layer)
        if below and ids.outer is not None:
            raise HostUnable(
                f"Cannot make a layer of {layer}: {below[0].point} is mounted in it, which only"
                " root may leave out",
                "unmount what is mounted there, or run as root",
            )
    id_map = ids.tree
    if id_map is not None and not all(host.can_idmap(layer) for layer in layers):
        raise HostUnable(
            f"Cannot show {', '.join(layers)} with the container's own ids: a file system there has"
            " no idmapped mounts",
            "--private-users identity does without them",
        )
    return OverlayAt(
        overlay.lowers,
        overlay.upper,
        None if overlay.upper is None else work_directory(overlay.upper),
        place.path,
        create,
        ids.owner,
        id_map,
        ids.outer is not None,
    )


def layered_root(
    request: Request, host: Host, guest: Guest, ids: Identities, is_image: bool
) -> MountPersistent | MountVolatile:
    """Decide how a root is mounted of which only a part is the tree's own, unchanged.

    Raises HostUnable, UsageError.
    """
    if is_image:
        raise UsageError(
            "--persist and --volatile yes are for directories, not for images",
            "--ephemeral discards all changes to an image",
        )
    if request.volatile:
        return volatile_step(request, guest, ids)
    return persistent_step(request, host, ids)


def persistent_step(request: Request, host: Host, ids: Identities) -> MountPersistent:
    """Decide how a root is mounted whose changes are kept apart.

    Raises HostUnable, UsageError.
    """
    assert request.persist is not None
    if request.ephemeral or request.read_only:
        raise UsageError(
            "--persist keeps changes, --ephemeral discards them, --read-only allows none",
            "give one of the three",
        )
    _check_whose(request.persist, request.target)
    below = host.mounts_below(request.target)
    if below and ids.outer is not None:
        raise HostUnable(
            f"Cannot put an overlay over {request.target}: {below[0].point} is mounted in it",
            "unmount what is mounted in the tree, or run as root",
        )
    if ids.tree is not None and not host.can_idmap(HostPath(os.path.dirname(request.persist))):
        raise HostUnable(
            f"Cannot keep changes in {request.persist}: its file system has no idmapped mounts",
            "name a directory on another one, or add --private-users identity",
        )
    return MountPersistent(
        request.target, request.persist, False, ids.tree, ids.owner, ids.outer is not None
    )


def _check_whose(directory: HostPath, tree: HostPath) -> None:
    try:
        other = os.readlink(f"{directory}/{TREE}")
    except OSError:
        return  # new, or nothing to read: making it will tell
    if other != tree:
        raise UsageError(
            f"{directory} keeps the changes of another tree, {other}",
            "name another directory, which will be made",
        )


def volatile_step(request: Request, guest: Guest, ids: Identities) -> MountVolatile:
    """Decide how a root is mounted that has the tree's /usr alone."""
    return MountVolatile(request.target, guest.links, ids.tree, ids.owner)
