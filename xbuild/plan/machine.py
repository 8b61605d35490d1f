"""What of this machine a run may use: processors and memory. Off the start path.

A container of a CI service sees the whole machine in /proc; what it may use of it is in its control
groups, and in those above them (cgroups(7), and the kernel's cgroup-v2.rst and sched-bwc.rst).
"""

from __future__ import annotations

import os

from xbuild.plan.computed import Shares, share
from xbuild.plan.limiting import read_hierarchies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")
_QUOTA_FILES = ("cpu.max", "cpu.cfs_quota_us")  # version 2, version 1
_PERIOD_FILE = "cpu.cfs_period_us"
_MEMBERS = "cgroup.procs"  # what every control group has


def read_shares(*, cpus: float | None = None, memory: int | None = None) -> Shares:
    """Share out what this process may use; ``cpus`` and ``memory`` (bytes) limit the run."""
    groups = tuple(_groups())
    processors = [len(os.sched_getaffinity(0)), *processor_quotas(groups)]
    sizes = [_total_bytes(), *memory_limits(groups)]
    if cpus is not None:
        processors.append(cpus)
    if memory is not None:
        sizes.append(memory)
    return share(max(1, int(min(processors))), min(sizes))


def _total_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups() -> Iterator[str]:
    """Yield this process's control groups, and those that they are in as far as can be seen."""
    found = read_hierarchies()
    places = [place for name, place in found.places if name in ("", "memory", "cpu")]
    for place in dict.fromkeys((*places, found.home)):
        above: str | None = place
        while above and os.path.exists(f"{above}/{_MEMBERS}"):
            yield above
            above = os.path.dirname(above)


def memory_limits(groups: tuple[str, ...]) -> Iterator[int]:
    """Yield how many bytes each group's directory says that it may have, where it says so."""
    for group in groups:
        for name in _MEMORY_FILES:
            text = _read(f"{group}/{name}")
            if text.isdigit():  # "max" is no limit
                yield int(text)


def processor_quotas(groups: tuple[str, ...]) -> Iterator[float]:
    """Yield how many processors' time each group may have, where its directory says so."""
    for group in groups:
        for name in _QUOTA_FILES:
            quota, _, period = _read(f"{group}/{name}").partition(" ")
            period = period or _read(f"{group}/{_PERIOD_FILE}")
            if quota.isdigit() and period.isdigit():  # "max" and -1 are none
                yield int(quota) / max(1, int(period))


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
