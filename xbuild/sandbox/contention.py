"""A tree that somebody has locked: waited for a moment, and in whose hands it is.

Off the start path: loaded when a lock is refused.
"""

from __future__ import annotations

import os

from xbuild.errors import TreeLocked
from xbuild.plan.lifecycle import LockTree
from xbuild.sandbox.filelock import lock_descriptor, lock_holders
from xbuild.sandbox.listing import running


def lock_patiently(step: LockTree, fd: int) -> None:
    """Lock once those have gone who are on their way out. Raises TreeLocked, naming the others."""
    try:
        lock_descriptor(fd, exclusive=step.is_exclusive)
    except BlockingIOError:
        holders = _names_of(fd) or ["a process that cannot be seen from here"]
        os.close(fd)
        whom = ", ".join(holders)
        if step.is_exclusive:
            raise TreeLocked(
                f"{step.tree} cannot be had alone: {whom} uses it",
                "wait for its end (xbuild wait), stop it (xbuild stop), or do without --exclusive",
            ) from None
        raise TreeLocked(
            f"{step.tree} is locked: {whom} has it alone",
            "wait for its end (xbuild wait), stop it (xbuild stop), or add --ephemeral",
        ) from None


def _names_of(fd: int) -> list[str]:
    containers = {each.pid: each.name for each in running()}
    return [
        f"container {containers[pid]} (process {pid})"
        if pid in containers
        else f"process {pid} ({_program(pid)})"
        for pid in lock_holders(fd)
    ]


def _program(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "unknown"
