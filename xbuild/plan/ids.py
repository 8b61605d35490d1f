"""User and group ids as numbers of two sides: id maps, and owners of what a plan makes."""

from __future__ import annotations

from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["shifted", "identity", "subordinate", "single", "nested"]
    MapWriter = Literal["self", "launcher", "newuidmap", "parent"]


class IdRange(Record):
    """``count`` consecutive ids: ``inside`` the namespace they start here, ``outside`` there."""

    inside: int
    outside: int
    count: int


class IdMap(Record):
    """The uid_map and gid_map of a user namespace (user_namespaces(7)), and who writes them.

    ``self``: the process itself, one id each, after denying setgroups. ``launcher``: xbuild's own
    process in the namespace above. ``newuidmap``: the set-user-ID programs newuidmap(1) and
    newgidmap(1). ``parent``: xbuild's process in the user namespace just above. ``has_setgroups``
    is False where setgroups(2) is denied for good.
    """

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]
    writer: MapWriter
    has_setgroups: bool = True

    def outside_uid(self, uid: int) -> int | None:
        """Return what ``uid`` inside is outside, or None where it is not mapped."""
        return _outside(self.uids, uid)

    def outside_gid(self, gid: int) -> int | None:
        """Return what ``gid`` inside is outside, or None where it is not mapped."""
        return _outside(self.gids, gid)


def same_ids(outer: IdMap) -> IdMap:
    """Map every id of ``outer`` to itself; a range may not span two of the namespace above."""
    uids = tuple(IdRange(span.inside, span.inside, span.count) for span in outer.uids)
    gids = tuple(IdRange(span.inside, span.inside, span.count) for span in outer.gids)
    return IdMap(uids, gids, "parent", outer.has_setgroups)


def _outside(ranges: tuple[IdRange, ...], number: int) -> int | None:
    for span in ranges:
        if span.inside <= number < span.inside + span.count:
            return span.outside + number - span.inside
    return None


class Owner(Record):
    """Who owns what a step creates: the numbers valid where the step is applied."""

    uid: int = 0
    gid: int = 0


class Identities(Record):
    """The id maps of a container.

    ``outer`` is entered first and owns the mounts; root of the host needs none. ``inner`` is the
    guest's own. ``tree`` presents files on disk through an idmapped mount. ``owner`` is the
    guest's root as numbers valid where mounts are made.
    """

    kind: Kind
    outer: IdMap | None
    inner: IdMap
    tree: IdMap | None
    owner: Owner
    notes: tuple[str, ...] = ()
