"""The step that limits what a container uses; ``limiting`` decides on it."""

from __future__ import annotations

from xbuild.record import HostPath, Record


class ControlGroup(Record):
    """A group to be made below ``parent``, and its settings: pairs of a file and a value.

    ``home`` is where this process is, and goes back to.
    """

    parent: HostPath
    home: HostPath
    settings: tuple[tuple[str, str], ...]


class LimitResources(Record):
    """Put process 1 and all after it into control groups, which go with the last process."""

    groups: tuple[ControlGroup, ...]
