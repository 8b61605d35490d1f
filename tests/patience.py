"""How long a test waits for what has to happen: long enough for a slow machine that is busy.

Only a test that hangs waits to the end of it, and how long something takes is not asserted.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

PATIENCE_S = 120.0
WORK_S = 1800.0  # for what has minutes of work to do: emulated compilers, package managers
_PAUSE_S = 0.01


def wait_for(is_so: Callable[[], object]) -> None:
    """Wait until something is so, and fail where it does not come to be."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it has not come to be"
        time.sleep(_PAUSE_S)


def await_lock(pid: int) -> None:
    """Wait until a process waits for a lock (flock(2)) that another one has."""

    def is_waiting() -> bool:
        with open("/proc/locks", encoding="ascii") as locks:
            return any("->" in line and f" {pid} " in line for line in locks)

    wait_for(is_waiting)


def await_server(address: str) -> None:
    """Wait until somebody listens at HOST:PORT."""
    host, _, port = address.partition(":")

    def is_listening() -> bool:
        try:
            socket.create_connection((host, int(port))).close()
        except ConnectionRefusedError:
            return False
        return True

    wait_for(is_listening)
