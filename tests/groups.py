"""Control groups: one that root gives to an ordinary user, as systemd does, and limited ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.patience import wait_for
from tests.users import User

_ENTER = ("sh", "-ec", 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"', "sh")


@contextmanager
def delegated_group(parent: str, user: User) -> Iterator[list[str]]:
    """Yield the beginning of a command line whose rest runs in a new group of ``user``'s."""
    place = f"{parent}/delegated-{os.getpid()}"
    os.mkdir(place)
    try:
        for path in (place, f"{place}/cgroup.procs"):
            os.chown(path, user.uid, user.gid)
        yield [*_ENTER, place]
    finally:
        _remove(place)


@contextmanager
def limited_group(parent: str, settings: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield as above for a new group in one that is limited, by those ``FILE=VALUE`` it has."""
    limited = f"{parent}/limited-{os.getpid()}-{settings[0].partition('.')[0]}"
    os.makedirs(f"{limited}/inner")
    try:
        for name, value in (setting.split("=") for setting in settings):
            if os.path.exists(f"{limited}/{name}"):
                with open(f"{limited}/{name}", "w", encoding="ascii") as file:
                    file.write(value)
        yield [*_ENTER, f"{limited}/inner"]
    finally:
        _remove(f"{limited}/inner")
        _remove(limited)


def _remove(place: str) -> None:
    def is_gone() -> bool:
        with suppress(OSError):
            os.rmdir(place)
        return not os.path.exists(place)

    wait_for(is_gone)
