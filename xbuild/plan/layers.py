"""Steps for mounts beyond binds and tmpfs: overlays, covered places, a root of little."""

from __future__ import annotations

from xbuild.plan.ids import IdMap, Owner
from xbuild.record import GuestPath, HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Create = Literal["no", "directory", "file"]

# In a directory that keeps changes: those, overlayfs's own, and a link to the tree.
UPPER, WORK, TREE = "upper", "work", "tree"


class OverlayAt(Record):
    """Show directories of the host as one (overlayfs), the last of ``lowers`` on top of the others.

    What changes is written to ``upper``, None for nothing; ``work``, beside it, is overlayfs's own
    and is locked while in use.
    """

    lowers: tuple[HostPath, ...]
    upper: HostPath | None
    work: HostPath | None
    target: GuestPath
    create: Create = "no"
    owner: Owner = Owner()
    id_map: IdMap | None = None
    in_user_namespace: bool = False


class MountPersistent(Record):
    """Make ``lower`` the root, with changes kept in ``directory`` (``xbuild diff``, ``commit``).

    The directory is made where it is missing, and locked while in use.
    """

    lower: HostPath
    directory: HostPath
    recursive: bool = False
    id_map: IdMap | None = None
    owner: Owner = Owner()
    in_user_namespace: bool = False


class MountVolatile(Record):
    """Make an empty tmpfs the root, with the tree's /usr read-only and ``links`` to parts of it."""

    source: HostPath
    links: tuple[tuple[str, str], ...]
    id_map: IdMap | None = None
    owner: Owner = Owner()


class Hide(Record):
    """Cover a place by an empty one of mode 0, read-only."""

    target: GuestPath
    is_directory: bool
    owner: Owner = Owner()
