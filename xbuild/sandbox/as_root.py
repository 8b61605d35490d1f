"""Working on a tree with the ids that its container has: in a child, in the outer user namespace.

Off the start path.
"""

from __future__ import annotations

import os

from xbuild.errors import HostUnable
from xbuild.sandbox import _linux
from xbuild.sandbox.experiment import in_child
from xbuild.sandbox.namespaces import write_map, write_outer_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xbuild.plan.steps import IdMap

_FOR_EVER_S = 30 * 86400.0


def as_root_of(outer: IdMap | None, act: Callable[[], str]) -> str:
    """Call ``act`` in a child that is root of a user namespace with these ids; None: as we are.

    Raises what ``experiment.in_child`` does.
    """

    def enter_and_act() -> str:
        if outer is not None:
            become_root_of(outer)
        return act()

    return in_child(enter_and_act, timeout_s=_FOR_EVER_S)


def become_root_of(outer: IdMap) -> None:
    """Enter a new user namespace with these ids and become root of it, for good."""
    here = int(os.readlink("/proc/self"))  # which may be of a PID namespace above this process's
    entered, has_entered = os.pipe()
    helper = 0 if outer.writer == "self" else os.fork()
    if outer.writer != "self" and helper == 0:
        _write_from_above(outer, here, entered)
    _linux.unshare(_linux.CLONE_NEWUSER)
    if outer.writer == "self":
        proc_fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        write_map(outer, proc_fd)
        os.close(proc_fd)
    else:
        os.write(has_entered, b"\0")
        if os.waitpid(helper, 0)[1] != 0:
            raise HostUnable("Cannot map the ids that the container has", "see xbuild doctor")
    if outer.has_setgroups:
        os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _write_from_above(outer: IdMap, pid: int, entered: int) -> None:
    status = 1
    try:
        os.read(entered, 1)
        write_outer_map(outer, pid)
        status = 0
    finally:
        os._exit(status)
