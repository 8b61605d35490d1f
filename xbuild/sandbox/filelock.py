"""Locks on a file itself (flock(2)): taken, waited for a moment, and whose they are.

Loaded only where an image is used.
"""

from __future__ import annotations

import fcntl
import os
import time

_PATIENCE_S = 10.0  # the kernel lets go of a file a moment after the process that held it is gone
_PAUSE_S = 0.01
_LOCKS = "/proc/locks"


def lock_descriptor(fd: int, *, exclusive: bool) -> None:
    """Lock an open file description, until its last descriptor and loop device are gone.

    Waits while the lock is held by processes that have ended, at most ten seconds. Raises
    BlockingIOError where it is held by another, OSError where the file system has no locks.
    """
    operation = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return fcntl.flock(fd, operation)
        except BlockingIOError:
            if time.monotonic() >= deadline or any(map(_is_alive, lock_holders(fd))):
                raise
        time.sleep(_PAUSE_S)


def lock_holders(fd: int) -> tuple[int, ...]:
    """Return the processes that took flock(2) locks on a file, those seen from this PID namespace.

    A process that took one may have ended while a loop device or a child still holds it.
    """
    status = os.fstat(fd)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found = []
    with open(_LOCKS, encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == place:
                found.append(int(fields[4]))
    return tuple(dict.fromkeys(pid for pid in found if pid > 0))


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
