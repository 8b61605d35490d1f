"""Id maps as the user gave them (``--uid-map``). Off the start path."""

from __future__ import annotations

from xbuild.errors import HostUnable, UsageError
from xbuild.plan.ids import Identities, IdMap, Owner, same_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.host import Host
    from xbuild.plan.request import Request


def given_identities(request: Request, host: Host) -> Identities:
    """Return the maps of ``--uid-map`` and ``--gid-map``, by which files are shown as well.

    Raises UsageError, HostUnable.
    """
    uids = request.uid_map
    gids = request.gid_map or uids
    if host.privileged:
        ids = IdMap(uids, gids, "parent")
        uid, gid = ids.outside_uid(0), ids.outside_gid(0)
        if uid is None or gid is None:
            raise UsageError(
                "--uid-map leaves out 0, root inside", "add a range that begins with it: 0:OUT:N"
            )
        if any(span.outside == 0 for span in (*uids, *gids)):
            raise UsageError(
                "--uid-map gives somebody inside the number of the host's root",
                "--private-users identity says so",
            )
        return Identities("shifted", None, ids, ids, Owner(uid, gid))
    if host.euid == 0 or not host.can_use_newuidmap:
        raise HostUnable(
            "Cannot map ids as --uid-map says: that takes the host's root, or newuidmap",
            "install uidmap (shadow-utils), and grant the ids in /etc/subuid and /etc/subgid",
        )
    outer = IdMap(uids, gids, "newuidmap")
    if outer.outside_uid(0) is None or outer.outside_gid(0) is None:
        raise UsageError("--uid-map leaves out 0, root inside", "such as 0:YOUR-UID:1")
    return Identities("subordinate", outer, same_ids(outer), None, Owner())
