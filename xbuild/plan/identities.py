"""Whose ids the container has: which maps, who writes them, and what will not work with them."""

from __future__ import annotations

from xbuild.errors import HostUnable
from xbuild.plan.ids import Identities, IdMap, IdRange, Owner, same_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.guest import Account
    from xbuild.plan.host import Host, SubIds
    from xbuild.plan.request import Request
    from xbuild.tree.survey import Survey


# The last 64 Ki of systemd's range for containers (systemd.io/UIDS-GIDS), free of allocations.
SHIFTED_BASE = 0x6FFF0000
SHIFTED_COUNT = 0x10000
_ALL_IDS = 0xFFFFFFFF
_MAX_RANGES = 340  # user_namespaces(7)
ALLOW_NEWUIDMAP = (
    "in its image, as root: chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap; setcap cap_setuid=ep"
    " /usr/bin/newuidmap; setcap cap_setgid=ep /usr/bin/newgidmap"
)


def choose_identities(
    request: Request, survey: Survey, host: Host, filesystem: str | None = None
) -> Identities:
    """Choose the id maps; ``filesystem`` is that of an image's root.

    Raises HostUnable when the request cannot be met.
    """
    if not host.has_own_proc:
        raise HostUnable(
            "Cannot map ids: no /proc is mounted here, or that of another PID namespace",
            "mount -t proc proc /proc; unshare(1) does so with --mount-proc",
        )
    if request.uid_map:
        from xbuild.plan.given_ids import given_identities  # off the start path

        return given_identities(request, host)
    if not may_have_roots_number(request, host, filesystem):
        return _shifted() if host.privileged else _of_a_user(survey.owner, host)
    if host.privileged:
        if request.private_users == "identity":
            return _identity()
        filesystem = filesystem or host.filesystem_of(request.target)
        note = (
            f"{filesystem} cannot be shown by an idmapped mount: root inside has the number of the"
            " host's root, confined by namespaces and locked mounts only"
        )
        return _identity(note)
    return _nested(host)


def may_have_roots_number(request: Request, host: Host, filesystem: str | None = None) -> bool:
    """Tell whether root inside may be the host's root to the kernel, by its number."""
    if not host.privileged:
        return host.euid == 0
    if request.private_users == "identity":
        return True
    return not (host.can_idmap_type(filesystem) if filesystem else host.can_idmap(request.target))


def check_mapped(account: Account, ids: Identities) -> None:
    """Raise HostUnable for ids that the container lacks: setresuid(2) takes -1 for no change."""
    groups = account.groups if ids.inner.has_setgroups else ()
    unmapped = [f"uid {account.uid}"] if ids.inner.outside_uid(account.uid) is None else []
    for gid in (account.gid, *groups):
        if ids.inner.outside_gid(gid) is None:
            unmapped.append(f"gid {gid}")
    if unmapped:
        raise HostUnable(
            f"Cannot run as {account.name}: {unmapped[0]} is not mapped in this container",
            "ordinary users have the ids that /etc/subuid and /etc/subgid grant them: subuid(5)"
            if ids.kind in ("subordinate", "single")
            else "xbuild run --dry-run shows which ids are",
        )


def identities_to_make_a_tree(host: Host) -> Identities:
    """Return the ids with which a new tree is made, so that a run shows them as they are meant.

    The host's root needs no user namespace for that, nor any map. Raises HostUnable.
    """
    if host.privileged:
        return _identity()
    return _nested(host) if host.euid == 0 else _of_a_user(host.euid, host)


def _of_a_user(owner: int, host: Host) -> Identities:
    if host.can_use_newuidmap and host.sub_uids and host.sub_gids:
        return _subordinate(host, owner)
    return _single(host, owner)


def _range(count: int, outside: int = 0) -> tuple[IdRange, ...]:
    return (IdRange(0, outside, count),)


def _shifted() -> Identities:
    ids = _range(SHIFTED_COUNT, SHIFTED_BASE)
    shift = IdMap(ids, ids, "parent")
    return Identities("shifted", None, shift, shift, Owner(SHIFTED_BASE, SHIFTED_BASE))


def _identity(*notes: str) -> Identities:
    everyone = IdMap(_range(_ALL_IDS), _range(_ALL_IDS), "parent")
    return Identities("identity", None, everyone, None, Owner(), notes)


def _nested(host: Host) -> Identities:
    """Root of an outer container: all the ids that it has."""
    if not host.can_map_ids:
        raise HostUnable(
            "Cannot map ids: root lacks CAP_SETUID, CAP_SETGID or CAP_SETFCAP here",
            "let the outer container have them, or run xbuild as an ordinary user",
        )
    if not host.own_uids or not host.own_gids:
        raise HostUnable(
            "Cannot map root: id 0 is not mapped in this user namespace",
            "start xbuild as a user whose id is mapped, see /proc/self/uid_map",
        )
    uids = tuple(IdRange(span.start, span.start, span.count) for span in host.own_uids)
    gids = tuple(IdRange(span.start, span.start, span.count) for span in host.own_gids)
    outer = IdMap(uids, gids, "launcher", host.has_setgroups)
    count = sum(span.count for span in uids)
    note = () if count >= SHIFTED_COUNT else (_few_ids(count),)
    return Identities("nested", outer, same_ids(outer), None, Owner(), note)


def _few_ids(count: int) -> str:
    return f"user ids mapped here: {count}; chown to others fails inside (EINVAL)"


def _subordinate(host: Host, owner: int) -> Identities:
    uids, gids = _granted(host.sub_uids), _granted(host.sub_gids)
    notes: tuple[str, ...] = ()
    if owner == host.sub_uids[0].start:
        # Unpacked inside a user namespace whose root was the first subordinate id.
        uids, gids = _shift_down(uids), _shift_down(gids)
        notes = ("the tree belongs to a subordinate id of yours, which is root inside",)
    else:
        uids = (IdRange(0, host.euid, 1), *uids)
        gids = (IdRange(0, host.egid, 1), *gids)
        notes = _ownership_note(owner, host)
    outer = IdMap(uids[:_MAX_RANGES], gids[:_MAX_RANGES], "newuidmap")
    return Identities("subordinate", outer, same_ids(outer), None, Owner(), notes)


def _granted(spans: tuple[SubIds, ...]) -> tuple[IdRange, ...]:
    ranges = []
    inside = 1
    for span in spans:
        ranges.append(IdRange(inside, span.start, span.count))
        inside += span.count
    return tuple(ranges)


def _shift_down(ranges: tuple[IdRange, ...]) -> tuple[IdRange, ...]:
    return tuple(IdRange(span.inside - 1, span.outside, span.count) for span in ranges)


def _single(host: Host, owner: int) -> Identities:
    uids, gids = (IdRange(0, host.euid, 1),), (IdRange(0, host.egid, 1),)
    outer = IdMap(uids, gids, "self", has_setgroups=False)
    notes = (_single_note(host), *_ownership_note(owner, host))
    return Identities("single", outer, same_ids(outer), None, Owner(), notes)


def _single_note(host: Host) -> str:
    if not (host.sub_uids and host.sub_gids):
        why = "/etc/subuid and /etc/subgid grant you none besides"
    elif host.no_new_privs:
        why = "newuidmap gains nothing here: no_new_privs"
    elif host.newuidmap_is_held_back:
        why = f"newuidmap gains too little in this container: {ALLOW_NEWUIDMAP}"
    else:
        why = "newuidmap is not installed"
    return (
        f"one user id only ({why}): chown fails inside (EINVAL), so does switching users;"
        " apt-get needs -o APT::Sandbox::User=root, and dpkg cannot unpack other users' files"
    )


def _ownership_note(owner: int, host: Host) -> tuple[str, ...]:
    if owner in (host.euid, -1):
        return ()
    name = "root" if owner == 0 else f"uid {owner}"
    return (
        f"the tree belongs to {name}, not to you: programs run, but writing to it fails;"
        " run as that user, or use a copy of your own",
    )
