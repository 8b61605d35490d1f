"""Deciding on limits: where control groups are made, and what is written to them.

Off the start path: loaded where a limit was asked for. See cgroups(7), and the kernel's
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import os

from xbuild.errors import HostUnable
from xbuild.plan.limits import ControlGroup, LimitResources
from xbuild.record import HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.request import Request

_ROOT = "/sys/fs/cgroup"
PERIOD_US = 100000
OVERHEAD_PROCESSES = 2  # xbuild's own in the group: process 1, and the supervisor above it
_MOST_WEIGHT_V1 = 1000


class Hierarchies(Record):
    """Where this process is in the control groups: directories by controller.

    For version 2, "", that is where groups can be made; ``home`` is where this process itself is,
    and ``offered`` are the controllers that such groups have. ``writable`` are the directories in
    which this user may make groups.
    """

    places: tuple[tuple[str, HostPath], ...]
    offered: tuple[str, ...] = ()
    home: HostPath | None = None
    writable: frozenset[HostPath] = frozenset()


def limit_resources(request: Request, found: Hierarchies) -> LimitResources:
    """Decide on control groups. Raises HostUnable where a limit cannot be kept."""
    wanted = _wanted(request)
    places = dict(found.places)
    unified = [name for name in wanted if name in found.offered]
    groups = []
    if unified:
        settings = tuple(pair for name in unified for pair in _settings_v2(name, request))
        parent = _usable(places[""], unified, found)
        groups.append(ControlGroup(parent, found.home or parent, settings))
    for name in wanted:
        if name in unified:
            continue
        if name not in places:
            raise _lacking(name)
        parent = _usable(places[name], [name], found)
        groups.append(ControlGroup(parent, parent, _settings_v1(name, request)))
    return LimitResources(tuple(groups))


def _wanted(request: Request) -> list[str]:
    asked = {
        "memory": request.memory,
        "cpu": request.cpus,
        "pids": request.pids,
        "io": request.io_weight,
    }
    return [name for name, value in asked.items() if value is not None]


def _settings_v2(name: str, request: Request) -> tuple[tuple[str, str], ...]:
    match name:
        case "memory":
            return (("memory.max", str(request.memory)), ("memory.swap.max", "0"))
        case "cpu":
            return (("cpu.max", f"{_quota(request)} {PERIOD_US}"),)
        case "pids":
            return (("pids.max", str((request.pids or 0) + OVERHEAD_PROCESSES)),)
        case _:
            return (("io.weight", f"default {request.io_weight}"),)


def _settings_v1(name: str, request: Request) -> tuple[tuple[str, str], ...]:
    match name:
        case "memory":
            size = str(request.memory)
            # With swap it may use as much, that is, none.
            return (("memory.limit_in_bytes", size), ("memory.memsw.limit_in_bytes", size))
        case "cpu":
            return (("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", _quota(request)))
        case "pids":
            return (("pids.max", str((request.pids or 0) + OVERHEAD_PROCESSES)),)
        case _:
            weight = min(request.io_weight or 0, _MOST_WEIGHT_V1)
            return (("blkio.bfq.weight", str(weight)),)


def _quota(request: Request) -> str:
    return str(int((request.cpus or 0) * PERIOD_US))


def _usable(place: HostPath, controllers: list[str], found: Hierarchies) -> HostPath:
    if place in found.writable:
        return place
    names = ", ".join(controllers)
    raise HostUnable(
        f"Cannot limit {names}: only root may make control groups in {place}",
        "run as root; or start xbuild by systemd-run --user --scope -p Delegate=yes -- xbuild ...;"
        f" or have root give you a group: mkdir {place}/mine, chown it and its cgroup.procs to you,"
        " and write your shell's process number to that",
    )


def _lacking(name: str) -> HostUnable:
    if not os.path.isdir("/run/systemd/system"):
        return HostUnable(
            f"Cannot limit {name}: no control group hierarchy here has this controller",
            f"as root, for version 2: echo +{name} >{_ROOT}/cgroup.subtree_control",
        )
    return HostUnable(
        f"Cannot limit {name}: systemd has not delegated this controller to xbuild's control group",
        "start it by systemd-run --user --scope -p Delegate=yes -- xbuild ...; as root without"
        " --user",
    )


def read_hierarchies() -> Hierarchies:
    """Read where this process is: /proc/self/cgroup and the mounts, nothing else."""
    places: list[tuple[str, HostPath]] = []
    offered: tuple[str, ...] = ()
    home: HostPath | None = None
    mounts = _cgroup_mounts()
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    for line in lines:
        number, controllers, path = line.split(":", 2)
        names = controllers.split(",") if number != "0" else [""]
        for name in names:
            root = mounts.get(name)
            if root is None:
                continue
            own = _own_place(root, path)
            if name == "":
                home = own
                place, offered = _place_v2(own)
                places.append(("", place))
            else:
                places.append(("io" if name == "blkio" else name, own))
    writable = frozenset(place for _, place in places if os.access(place, os.W_OK))
    return Hierarchies(tuple(places), offered, home, writable)


def _cgroup_mounts() -> dict[str, str]:
    found: dict[str, str] = {}
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, point, kind, options, *_ = line.split(" ")
            if kind == "cgroup2":
                found.setdefault("", point)
            elif kind == "cgroup":
                for option in options.split(","):
                    found.setdefault(option, point)
    return found


def _own_place(root: str, path: str) -> HostPath:
    place = os.path.normpath(f"{root}/{path}")
    return HostPath(place if os.path.isdir(place) and place.startswith(root) else root)


def _place_v2(own: HostPath) -> tuple[HostPath, tuple[str, ...]]:
    """Return where a group can be made that has controllers, and which.

    A group with processes cannot give controllers to groups in it, but for the root: beside it,
    then.
    """
    for place in (own, HostPath(os.path.dirname(own))):
        try:
            with open(f"{place}/cgroup.subtree_control", encoding="ascii") as file:
                offered = tuple(file.read().split())
        except OSError:
            continue
        if offered:
            return place, offered
    return own, ()
