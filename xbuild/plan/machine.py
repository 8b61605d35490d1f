"""What of this machine a run may use: processors and memory. Off the start path."""

from __future__ import annotations

import os

from xbuild.plan.computed import Shares, share
from xbuild.plan.limiting import read_hierarchies

_MEMORY_FILES = ("memory.max", "memory.limit_in_bytes")  # cgroups(7): version 2, version 1


def read_shares(*, cpus: float | None = None, memory: int | None = None) -> Shares:
    """Share out what this process may use; ``cpus`` and ``memory`` (bytes) limit the run."""
    cores = len(os.sched_getaffinity(0))
    if cpus is not None:
        cores = max(1, min(cores, int(cpus)))
    limits = [_total_bytes(), *_group_limits(), *([memory] if memory is not None else [])]
    return share(cores, min(limits))


def _total_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _group_limits() -> list[int]:
    found = read_hierarchies()
    places = [place for name, place in found.places if name in ("", "memory")]
    limits = []
    for place in (*places, found.home):
        for name in _MEMORY_FILES:
            try:
                with open(f"{place}/{name}", encoding="ascii") as file:
                    text = file.read().strip()
            except OSError:
                continue
            if text.isdigit():  # "max" is no limit
                limits.append(int(text))
    return limits
