"""The ids of a program that reads what a stranger made: somebody's who has nothing.

Off the start path.
"""

from __future__ import annotations

from xbuild.plan.identities import SHIFTED_BASE, SHIFTED_COUNT
from xbuild.plan.steps import IdMap, IdRange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.host import Host, SubIds

# Behind those of the containers: no process of the host has it, nor any guest.
_NOBODYS = SHIFTED_BASE + SHIFTED_COUNT


def parsing_ids(host: Host, owners: tuple[tuple[int, int], ...]) -> tuple[IdMap, ...]:
    """Return the id maps under which to try, the one that has least first.

    Root inside is the program. ``owners`` are the (uid, gid) of what it is to open: they are mapped
    as well, without which no capability reaches their files. With the last map the program is the
    caller to the kernel: an ordinary user has no other, and some file systems give a file to
    nobody else, root not excepted (FUSE, NFS).
    """
    itself = IdMap((IdRange(0, host.euid, 1),), (IdRange(0, host.egid, 1),), "self", False)
    if host.euid != 0 or not host.can_map_ids or not host.has_setgroups:
        return (itself,)
    uids = _mapped(host.own_uids, [uid for uid, _ in owners])
    gids = _mapped(host.own_gids, [gid for _, gid in owners])
    as_caller = IdMap(
        (IdRange(0, 0, 1), *(span for span in uids[1:] if span.outside)),
        (IdRange(0, host.egid, 1), *(span for span in gids[1:] if span.outside != host.egid)),
        "launcher",
    )
    found = [IdMap(uids, gids, "launcher")] if uids[0].outside and gids[0].outside else []
    return (*found, as_caller)


def _mapped(own: tuple[SubIds, ...], others: list[int]) -> tuple[IdRange, ...]:
    """Map 0 to an id that is nobody's, and from 1 on the others that this namespace has."""
    nobody = _nobody_of(own)
    wanted = (nobody, *(i for i in dict.fromkeys(others) if i != nobody and _has(own, i)))
    return tuple(IdRange(inside, outside, 1) for inside, outside in enumerate(wanted))


def _nobody_of(own: tuple[SubIds, ...]) -> int:
    """Return an id without anything: ours where it is mapped here, else the last that is."""
    if _has(own, _NOBODYS):
        return _NOBODYS
    return max((span.start + span.count - 1 for span in own), default=0)


def _has(own: tuple[SubIds, ...], number: int) -> bool:
    return any(span.start <= number < span.start + span.count for span in own)
