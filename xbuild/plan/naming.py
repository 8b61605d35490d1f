"""How a container finds names: its own, /etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

import stat

from xbuild.plan import steps
from xbuild.plan.guest import Place, api_path
from xbuild.record import GuestPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.guest import Guest
    from xbuild.plan.host import Host
    from xbuild.plan.places import MountPoints
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Create, Owner, Step

_BARE_RESOLV_CONF = Place(GuestPath("/"), ("etc", "resolv.conf"), stat.S_IFDIR)


def name_steps(
    request: Request, host: Host, guest: Guest, points: MountPoints, owner: Owner
) -> tuple[list[Step], list[str]]:
    """Return the steps that show /etc/hosts and /etc/resolv.conf, and notes on what is missing."""
    # What boots has a name and an /etc/hosts of its own, and unmounts what it finds mounted.
    found = [] if request.init is not None else _show_hosts(request, host, guest, points, owner)
    notes: list[str] = []
    network, given = request.network, host.resolv_conf
    if network == "none" or (given is None and network != "private"):
        return found, notes
    place = guest.resolv_conf if not points.is_bare else _BARE_RESOLV_CONF
    if place is not None and place.missing[:1] == ("etc",) and not points.is_bare:
        return found, notes  # a tree without /etc, of static programs, asks nobody
    create = None if place is None else _way_to_cover(place, guest, points)
    if place is None or create is None:
        notes.append(
            "the tree has no file /etc/resolv.conf to cover: names will not resolve inside;"
            f" touch {request.target}/etc/resolv.conf once"
        )
    elif given is None or network == "private":
        from xbuild.plan.networks import NAMESERVER  # off the start path

        source = GuestPath(f"{api_path(guest, '/run')}/xbuild/resolv.conf")
        found += [
            steps.WriteFile(source, f"nameserver {NAMESERVER}\n", owner),
            steps.Show(source, place.path, create, owner),
        ]
    else:
        found.append(
            steps.Bind(
                given, place.path, read_only=True, recursive=False, create=create, owner=owner
            )
        )
    return found, notes


def _show_hosts(
    request: Request, host: Host, guest: Guest, points: MountPoints, owner: Owner
) -> list[Step]:
    content = host.hosts.rstrip("\n") + f"\n127.0.1.1\t{hostname_of(request)}\n"
    if points.is_bare:
        return [
            steps.Directory(GuestPath("/etc"), 0o755, owner),
            steps.WriteFile(GuestPath("/etc/hosts"), content, owner),
        ]
    place = guest.hosts
    if place is None or place.missing or not stat.S_ISREG(place.mode):
        return []
    source = GuestPath(f"{api_path(guest, '/run')}/xbuild/hosts")
    return [steps.WriteFile(source, content, owner), steps.Show(source, place.path)]


def _way_to_cover(place: Place, guest: Guest, points: MountPoints) -> Create | None:
    """Return how a file comes to be at ``place`` for another to cover it; None: not at all."""
    if points.is_bare:
        return "file"
    if not place.missing:
        return "no" if stat.S_ISREG(place.mode) else None
    if place.existing in (api_path(guest, "/proc"), api_path(guest, "/sys")):
        return None
    is_ours = place.covered or (points.is_overlay and stat.S_ISDIR(place.mode))
    return "file" if is_ours else None


def hostname_of(request: Request) -> str:
    """Return the host name asked for, or one made from the tree's name (hostname(7))."""
    if request.hostname is not None:
        return request.hostname
    name = request.target.rstrip("/").rpartition("/")[2]
    letters = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "-" for c in name)
    return letters.strip("-")[:63] or "xbuild"
