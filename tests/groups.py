"""A control group that root gives to an ordinary user, as systemd's delegation does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.users import User

_PATIENCE_S = 10.0


@contextmanager
def delegated_group(parent: str, user: User) -> Iterator[list[str]]:
    """Yield the beginning of a command line whose rest runs in a new group of ``user``'s."""
    place = f"{parent}/delegated-{os.getpid()}"
    os.mkdir(place)
    try:
        for path in (place, f"{place}/cgroup.procs"):
            os.chown(path, user.uid, user.gid)
        yield ["sh", "-ec", 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"', "sh", place]
    finally:
        _remove(place)


def _remove(place: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while os.path.exists(place):
        assert time.monotonic() < end
        with suppress(OSError):
            os.rmdir(place)
            break
        time.sleep(0.05)
