"""What a run used, as the kernel has counted it: getrusage(2), proc_pid_io(5), control groups.

The counts of a process pass to its parent when that waits for it, so that the child of the
launcher has those of all in the container once it has ended: process 1 waits for every orphan, and
the kernel for what it kills at the end. Not counted is what nobody waited for: the children of
somebody who ignores SIGCHLD. Off the start path: loaded where somebody asks.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xbuild.record import Record
from xbuild.sandbox.container import Watched
from xbuild.sandbox.init import exit_status_of
from xbuild.sandbox.sysfs import io_of

if TYPE_CHECKING:
    from typing import Literal

    PeakOf = Literal["container", "process"]

_KIB = 1024
_BLOCK = 512  # linux/task_io_accounting_ops.h: task_io_get_oublock


class Usage(Record):
    """Seconds of the processors, and bytes.

    ``peak_memory`` is of all processes together where a control group counted it, else the most
    that one process had. ``written`` is what was written to anything, pipes included; ``stored``
    what went on its way to a disk. None is not known: the kernel tells root what was written, and
    whoever owns the container what was stored.
    """

    user_s: float
    system_s: float
    peak_memory: int
    peak_of: PeakOf
    written: int | None
    stored: int


class MeasuredWatched(Watched):
    """A child whose use of the machine is read when it has ended."""

    usage: Usage | None = None

    def _reap(self, flags: int) -> int | None:
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | flags) is None:
            return None
        written = io_of(self.pid, "wchar")  # while it is a zombie
        _, wait_status, used = os.wait4(self.pid, 0)
        self.usage = Usage(
            used.ru_utime,
            used.ru_stime,
            used.ru_maxrss * _KIB,
            "process",
            written,
            used.ru_oublock * _BLOCK,
        )
        return exit_status_of(wait_status)
