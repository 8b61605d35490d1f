"""Steps of a run's own life: its name, its hold on the tree, its time.

Scope: what the launcher does about a container as a whole, before and while its children live.
"""

from __future__ import annotations

import os

from xbuild.record import HostPath, Record

NAME_LIMIT = 48  # characters, so that a socket's path fits into sun_path: unix(7)
KILL_TIMEOUT_S = 10.0
BOOTED_KILL_TIMEOUT_S = 90.0  # services have theirs, which is this for systemd's
_PUNCTUATION = "-_."


class LockTree(Record):
    """Lock the tree's directory itself (flock(2)) for as long as the container lives.

    Shared, unless ``is_exclusive``; a shared lock that cannot be had for want of permission or of
    locks in the file system is done without.
    """

    tree: HostPath
    is_exclusive: bool = False


class Enlist(Record):
    """Be listed as ``name`` while the container lives (``xbuild ps``).

    ``is_given``: that name or none; else -2, -3 and so on are appended until it is free.
    """

    name: str
    is_given: bool = False
    tree: HostPath = HostPath("/")
    is_ephemeral: bool = False
    has_console: bool = False  # detached: output goes to a log, and others attach
    is_required: bool = False  # a run that nobody named can do without
    is_booted: bool = False  # it takes longer to stop


class LimitTime(Record):
    """End the container by SIGTERM, and by SIGKILL ``kill_s`` seconds later.

    After ``total_s`` seconds, or ``idle_s`` seconds in which nothing was written and next to no
    processor time was used; None is for ever.
    """

    total_s: float | None
    idle_s: float | None
    kill_s: float = KILL_TIMEOUT_S


class LinkJournal(Record):
    """Make a symbolic link in the host's journal to that of a booted tree; it stays."""

    link: HostPath
    journal: HostPath


class RegisterMachine(Record):
    """Have systemd-machined list what was booted, by ``program`` on the bus at ``address``.

    Under the container's name, with ``machine_id`` (hexadecimal, empty for none). One that is not
    ``is_required`` is done without where machined is not there.
    """

    program: HostPath
    address: str
    tree: HostPath
    machine_id: str
    is_required: bool


def default_name(target: HostPath) -> str:
    """Return a container's name by its tree: the last part of the path, other characters as -."""
    name = "".join(c if is_name_character(c) else "-" for c in os.path.basename(target))
    return name.lstrip(_PUNCTUATION)[:NAME_LIMIT] or "root"


def is_name(text: str) -> bool:
    """Tell whether a container can be called so."""
    return (
        0 < len(text) <= NAME_LIMIT
        and text[0] not in _PUNCTUATION
        and all(map(is_name_character, text))
    )


def is_name_character(character: str) -> bool:
    """Tell whether a name may have this character."""
    return character.isascii() and (character.isalnum() or character in _PUNCTUATION)
