"""What a probe is given and what it returns."""

from __future__ import annotations

import os

from xbuild.errors import HostUnable
from xbuild.plan.host import Host
from xbuild.plan.steps import IdMap, IdRange
from xbuild.record import HostPath, Record
from xbuild.sandbox import _linux
from xbuild.sandbox.experiment import in_child
from xbuild.sandbox.namespaces import write_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from xbuild.plan.restrictions import Restriction

    State = Literal["ok", "missing", "faulty", "n/a"]


class Circumstances(Record):
    """The host's facts, and the directory whose file system matters: the target's or the cwd."""

    host: Host
    place: HostPath
    is_target: bool = False


class Finding(Record):
    """One row: ``check`` is its name, ``fix`` what to do where it is not well."""

    check: str
    state: State
    detail: str
    fix: str = ""


def find_out(check: str, act: Callable[[], str], explain: Callable[[int], Restriction]) -> Finding:
    """Do something in a child; ``explain`` an errno to a person where the kernel refused."""
    try:
        return Finding(check, "ok", in_child(act))
    except HostUnable as error:
        return Finding(check, "missing", error.message, error.hint)
    except OSError as error:
        found = explain(error.errno or 0)
        at = f" at {error.filename}" if error.filename else ""
        return Finding(check, "missing", f"{error.strerror}{at}: {found.cause}", found.hint)


def enter_private_mounts() -> None:
    """Leave the host's mount namespace, as its root: nothing done from here on reaches it.

    For a process made for this only. Raises OSError.
    """
    _linux.unshare(_linux.CLONE_NEWNS)
    _linux.set_propagation("/", _linux.MS_REC | _linux.MS_PRIVATE)


def enter_user_namespace(more: int) -> None:
    """Become root of a new user namespace and of those in ``more`` (CLONE_NEW*). Raises OSError.

    For a process made for this only.
    """
    uid, gid = os.geteuid(), os.getegid()
    _linux.unshare(_linux.CLONE_NEWUSER | more)
    proc_fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    write_map(IdMap((IdRange(0, uid, 1),), (IdRange(0, gid, 1),), "self"), proc_fd)
    os.close(proc_fd)
