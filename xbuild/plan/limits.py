"""The step that limits what a container uses; ``limiting`` decides on it."""

from __future__ import annotations

from xbuild.plan.ids import Owner
from xbuild.record import GuestPath, HostPath, Record


class ControlGroup(Record):
    """A group to be made below ``parent``, and its settings: pairs of a file and a value.

    ``home`` is where this process is, and goes back to. ``is_delegated``: in it the guest has a
    group of its own, and beside that xbuild's processes one.
    """

    parent: HostPath
    home: HostPath
    settings: tuple[tuple[str, str], ...]
    is_delegated: bool = False


class LimitResources(Record):
    """Put process 1 and all after it into control groups, which go with the last process."""

    groups: tuple[ControlGroup, ...]


class RootCgroups(Record):
    """Begin a cgroup namespace at the guest's own group, which its root may divide further.

    The process that becomes the command is forked in it; process 1 leaves it thereafter.
    """

    owner: Owner


class MountCgroup(Record):
    """Mount the control groups of version 2 as the cgroup namespace shows them (cgroups(7))."""

    target: GuestPath
