"""The certificate of a run: what the host was like before and after, compared, in one line.

Every difference in the mount table, the loop devices and the binfmt_misc entries counts, whoever
made it, and is named, so that a reader recognises another program's doing. Of processes those
count that this run started, or that hold the tree and did not before.
"""

from __future__ import annotations

import os
import time
from collections import Counter

from xbuild.record import HostPath, Record
from xbuild.sandbox import _linux
from xbuild.sandbox.holders import Holders, find_holders, living_descendants, name_of
from xbuild.sandbox.mountinfo import MountRow, is_within, read_mountinfo
from xbuild.sandbox.sysfs import BLOCKS, backing_file_of, names_in, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BINFMT = "/proc/sys/fs/binfmt_misc"
_SETTLE_S = 2.0  # the kernel takes a mount namespace down after its last process is gone
_PAUSE_S = 0.02
_NAMED = 5  # differences and holders of a kind that are named, the rest is counted


class Witness(Record):
    """The host at one moment, as far as a container could leave something on it."""

    mounts: tuple[MountRow, ...]
    loops: Mapping[str, str]
    binfmt: Mapping[str, str]
    descendants: tuple[int, ...]
    holders: Holders


class Certificate(Record):
    """``is_clean`` when the host is as it was; ``text`` is the one line for people."""

    is_clean: bool
    text: str


def witness(target: HostPath) -> Witness:
    """Look at the host before a run on ``target``.

    Makes this process the parent of every descendant that loses its own, until ``certify``
    (PR_SET_CHILD_SUBREAPER), so that none is overlooked.
    """
    _linux.prctl(_linux.PR_SET_CHILD_SUBREAPER, 1)
    return _observe(target)


def certify(before: Witness, target: HostPath) -> Certificate:
    """Compare the host with what it was, giving the kernel two seconds to finish tearing down."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        after = _observe(target)
        found = _differences(before, after)
        if not found or time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE_S)
    _linux.prctl(_linux.PR_SET_CHILD_SUBREAPER, 0)
    freedom = _freedom(before, after, target)
    if found:
        return Certificate(False, f"NOT untouched: {'; '.join(found)}; {freedom}")
    nothing = "0 mounts, 0 loop devices, 0 binfmt entries, 0 processes left"
    return Certificate(True, f"host untouched: {nothing}; {freedom}")


def _observe(target: HostPath) -> Witness:
    try:
        holders = find_holders(HostPath(os.path.realpath(target)))
    except FileNotFoundError:
        holders = Holders((), 0)
    return Witness(read_mountinfo(), _loops(), _binfmt_entries(), living_descendants(), holders)


def _loops() -> dict[str, str]:
    return {
        name: backing_file_of(name)
        for name in names_in(BLOCKS)
        if name.startswith("loop") and os.path.exists(f"{BLOCKS}/{name}/loop")
    }


def _binfmt_entries() -> dict[str, str]:
    return {name: text_of(f"{_BINFMT}/{name}") for name in names_in(_BINFMT) if name != "register"}


def _differences(before: Witness, after: Witness) -> list[str]:
    return [
        *_mount_differences(before.mounts, after.mounts),
        *_map_differences("loop device", before.loops, after.loops, shown=True),
        *_map_differences("binfmt entry", before.binfmt, after.binfmt, shown=False),
        *_process_differences(before, after),
    ]


def _mount_differences(before: tuple[MountRow, ...], after: tuple[MountRow, ...]) -> Iterator[str]:
    earlier, later = Counter(map(_shown, before)), Counter(map(_shown, after))
    for word, rows in (("appeared", later - earlier), ("disappeared", earlier - later)):
        names = [f"{row[0]} ({row[1]})" for row in rows.elements()]
        if names:
            yield f"{_counted(len(names), 'mount')} {word}: {_listed(names)}"


def _shown(row: MountRow) -> tuple[str, ...]:
    """Return what of a mount matters: neither its number nor those of its peer groups."""
    tags = ",".join(sorted(tag.partition(":")[0] for tag in row.tags))
    return (row.point, row.filesystem, row.root, row.source, row.options, tags, row.super_options)


def _map_differences(
    what: str, before: Mapping[str, str], after: Mapping[str, str], *, shown: bool
) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if name not in after:
            yield f"{what} {name} disappeared"
        elif name not in before:
            yield f"{what} {name} appeared{f' ({after[name]})' if shown else ''}"
        elif before[name] != after[name]:
            yield f"{what} {name} changed"


def _process_differences(before: Witness, after: Witness) -> Iterator[str]:
    started = [pid for pid in after.descendants if pid not in before.descendants]
    if started:
        names = [f"{name_of(pid)} ({pid})" for pid in started]
        yield f"{_counted(len(names), 'process', 'processes')} left: {_listed(names)}"
    known = {holder.pid for holder in before.holders.found}
    newcomers = [str(h) for h in after.holders.found if h.pid not in {*known, *started}]
    if newcomers:
        yield f"the tree is now held by {_listed(newcomers)}"


def _freedom(before: Witness, after: Witness, target: HostPath) -> str:
    tree = os.path.realpath(target)
    if not os.path.exists(tree):
        return f"{target} is gone"
    holding = _holding(after, tree)
    if holding:
        as_before = ", as before" if set(holding) <= set(_holding(before, tree)) else ""
        return f"{target} is held by {_listed(holding)}{as_before}"
    below = [m.point for m in after.mounts if m.point != tree and is_within(m.point, tree)]
    unmount = f"unmount (umount -R: {_listed(below)} below it)" if below else "unmount"
    unseen = after.holders.unseen
    limit = f" ({_counted(unseen, 'process', 'processes')} not looked into: {_whose()})"
    return f"{target} is free to {unmount} or flash{limit if unseen else ''}"


def _holding(seen: Witness, tree: str) -> list[str]:
    holders = [str(holder) for holder in seen.holders.found]
    return holders + [name for name, file in seen.loops.items() if is_within(file, tree)]


def _whose() -> str:
    return "other users'" if os.geteuid() else "more privileged"


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
