"""Delete what is in the cache and not in use: which is decided first, purely, then done.

A directory is renamed before it goes, so that nobody begins to use half of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil

from xbuild.record import HostPath, Record
from xbuild.source.holdings import KINDS, OTHER, Holding, fillers_of, users_of

_GOING = ".new-going-"
"""How what is being deleted is called: such names are leftovers to all who look."""


class Rule(Record):
    """What may go: unused for ``older_than_s``, and no more than what is over ``keep_bytes``.

    What xbuild did not put there stays, unless it was asked for by its kind.
    """

    older_than_s: float = 0.0
    keep_bytes: int | None = None
    takes_other: bool = False


class Spared(Record):
    """What was to go and did not, with why."""

    holding: Holding
    why: str


class Choice(Record):
    """What goes and what is spared."""

    going: tuple[Holding, ...]
    spared: tuple[Spared, ...]


def choose(holdings: tuple[Holding, ...], rule: Rule, now: float) -> Choice:
    """Decide what goes, the longest unused first; leftovers of killed processes always do."""
    leftovers = {kind.name for kind in KINDS if kind.is_leftover}
    total = sum(holding.size_bytes for holding in holdings)
    going: list[Holding] = []
    spared: list[Spared] = []
    for holding in sorted(holdings, key=lambda each: (each.kind not in leftovers, each.used_at)):
        is_over = rule.keep_bytes is None or total > rule.keep_bytes
        is_due = is_over and now - holding.used_at >= rule.older_than_s
        if holding.kind == OTHER and not rule.takes_other:
            continue
        if not is_due and holding.kind not in leftovers:
            continue
        if holding.users:
            spared.append(Spared(holding, "; ".join(holding.users)))
            continue
        going.append(holding)
        total -= holding.size_bytes
    return Choice(tuple(going), tuple(spared))


def delete(going: tuple[Holding, ...], cache: HostPath) -> Choice:
    """Delete what is not in use now; return what went and what was spared after all."""
    gone: list[Holding] = []
    spared: list[Spared] = []
    for holding in going:
        why = _delete(holding, cache)
        if why:
            spared.append(Spared(holding, why))
        else:
            gone.append(holding)
    return Choice(tuple(gone), tuple(spared))


def _delete(holding: Holding, cache: HostPath) -> str:
    """Delete one thing; return why not, "" if it is gone."""
    kind = next(kind for kind in KINDS if kind.name == holding.kind)
    try:
        users = fillers_of(kind, cache)
        if not users and os.path.isdir(holding.path):
            users = _delete_directory(holding.path)
        elif not users:
            users = _delete_file(holding.path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return "; ".join(users)


def _delete_file(path: HostPath) -> tuple[str, ...]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _lock(fd)
        users = users_of(path)
        if not users:
            for each in (f"{path}.json", path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(each)
    except BlockingIOError:
        return ("it is in use",)
    finally:
        os.close(fd)
    return users


def _delete_directory(path: HostPath) -> tuple[str, ...]:
    going = HostPath(f"{os.path.dirname(path)}/{_GOING}{os.path.basename(path)}")
    os.rename(path, going)
    users = users_of(going)
    if users:
        os.rename(going, path)
    else:
        shutil.rmtree(going)
    return users


def _lock(fd: int) -> None:
    """Lock a file that its users share. Raises BlockingIOError if it has any."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
