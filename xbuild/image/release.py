"""Detach what other programs left of an image: swap, mounts, loop devices, in that order.

Mounts are made private before they are unmounted. A /dev that was bound into the image shares its
mounts with the host's otherwise, and unmounting takes /dev/pts from both (mount_namespaces(7)).
"""

from __future__ import annotations

import errno

from xbuild.errors import ImageBusy
from xbuild.image.program import run_program
from xbuild.image.users import Use, Uses, find_uses
from xbuild.record import HostPath
from xbuild.sandbox import _linux
from xbuild.sandbox.loop import detach_loop
from xbuild.sandbox.mountinfo import is_within, read_mountinfo


def releasable(uses: Uses) -> tuple[Use, ...]:
    """Return what release() takes away, in its order: nothing of living processes' own."""
    order = ("swap", "mount", "loop")
    ours = [use for use in uses.found if use.kind in order and not use.pid]
    return tuple(sorted(ours, key=lambda use: order.index(use.kind)))


def refuse_locked(uses: Uses) -> None:
    """Raise ImageBusy for an image that a running xbuild has: its loop devices are in use."""
    locked = [use.text for use in uses.found if use.kind == "lock"]
    if locked:
        raise ImageBusy(
            f"{uses.path} is in use, not left behind: {'; '.join(locked)}",
            "end that first; what it attached goes with it",
        )


def release(path: HostPath) -> Uses:
    """Take away what is releasable(), and return what still holds the image afterwards.

    Raises ImageBusy when something is in use, or locked.
    """
    uses = find_uses(path)
    refuse_locked(uses)
    for use in releasable(uses):
        try:
            _take_away(use)
        except OSError as error:
            hint = "; ".join(u.text for u in uses.found if u.kind in ("process", "mapping"))
            raise ImageBusy(
                f"Cannot release {path}: {use.text}, and detaching it fails: {error.strerror}",
                hint or f"xbuild who {use.place} shows who uses it",
            ) from error
    return find_uses(path)


def _take_away(use: Use) -> None:
    match use.kind:
        case "swap":
            done = run_program("swapoff", [use.place], purpose=f"stop swapping to {use.place}")
            if done.status:
                raise OSError(errno.EBUSY, done.stderr.strip())
        case "mount":
            _unmount(use.place)
        case "loop":
            _detach(use.place)


def _detach(loop: str) -> None:
    try:
        detach_loop(loop)
    except OSError as error:
        if error.errno != errno.ENXIO:  # not attached: it went with its last mount
            raise


def _unmount(point: str) -> None:
    """Unmount what is at and below ``point``, without that spreading from below it."""
    if all(row.point != point for row in read_mountinfo()):
        return  # went with another
    _linux.set_propagation(point, _linux.MS_REC | _linux.MS_PRIVATE)
    for row in reversed(read_mountinfo()):
        if is_within(row.point, point):
            _linux.umount2(row.point, 0)
