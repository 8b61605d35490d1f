"""Sessions of pytest at work on one suite: each takes the next share of the tests from a queue.

Plain processes rather than pytest-xdist's workers, which have threads: the tests fork, and the
code under test makes user namespaces, for which a process must have one thread. A share is a
file's tests, or one test where its file is long and its tests need nothing of each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from xbuild.record import HostPath

ALONE = "alone"
"""The mark of a test that changes what cannot be told from what another session would."""

LONGEST = (
    "test_native_languages.py",
    "test_native_compilers.py",
    "test_native_prepare.py",
    "test_profile_gentoo.py",
    "test_create_debian.py",
    "test_package_managers.py",
    "test_boot_systemd.py",
    "test_boot.py",
    "test_create_ubuntu.py",
    "test_gentoo_walkthrough.py",
    "test_native_provider.py",
    "test_native_frontends.py",
    "test_create_bootstrap_faults.py",
    "test_profile_image.py",
)
"""Taken first, in this order: a long share that is taken last keeps one session busy alone."""

TOGETHER = {
    "test_native_hostile.py": "test_native_prepare.py",
    "test_native_ubuntu.py": "test_native_prepare.py",
    "test_setup_command.py": "test_retry.py",
}
"""Files that are one share: they keep packages in one directory, where apt will be alone.

Or they need the same releases of qemu, which each session fetches for itself.
"""

SEPARABLE = frozenset(
    ("test_profile_gentoo.py", "test_package_managers.py", "test_boot_systemd.py", "test_boot.py")
)

Share = tuple[pytest.Item, ...]


class Queue:
    """Shares of the same tests, handed out once each by way of the file ``path``."""

    def __init__(self, path: HostPath, items: list[pytest.Item]) -> None:
        self._path = path
        self._shares = share_out(items)
        listed = "".join(f"{_share_of(share[0])} {len(share)}\n" for share in self._shares)
        self._digest = hashlib.sha256(listed.encode()).hexdigest()

    def __iter__(self) -> Iterator[Share]:
        """Yield what no other session took. Raises UsageError where they have other tests."""
        while (number := self._take()) < len(self._shares):
            yield self._shares[number]

    def _take(self) -> int:
        with open(self._path, "a+", encoding="ascii") as queue:
            fcntl.flock(queue, fcntl.LOCK_EX)
            queue.seek(0)
            digest, *taken = queue.read().split() or (self._digest,)
            if digest != self._digest:
                raise pytest.UsageError(f"--queue: {self._path} is that of other tests")
            queue.write(f"{os.getpid()}\n" if taken else f"{digest}\n{os.getpid()}\n")
            return len(taken)


def share_out(items: list[pytest.Item]) -> list[Share]:
    """Return all tests in shares, in the order in which to take them."""
    shares: dict[str, list[pytest.Item]] = {}
    for item in items:
        shares.setdefault(_share_of(item), []).append(item)
    ordered = sorted(shares.values(), key=lambda share: (_rank(share[0]), -len(share)))
    return [tuple(share) for share in ordered]


def _share_of(item: pytest.Item) -> str:
    if item.get_closest_marker(ALONE):
        return ALONE
    return item.nodeid if item.path.name in SEPARABLE else _file_of(item)


def _file_of(item: pytest.Item) -> str:
    return TOGETHER.get(item.path.name, item.path.name)


def _rank(item: pytest.Item) -> int:
    """Who is alone goes first: then nobody has begun with anything long that it has to wait for."""
    if item.get_closest_marker(ALONE):
        return -1
    return LONGEST.index(_file_of(item)) if _file_of(item) in LONGEST else len(LONGEST)


def run_shares(session: pytest.Session, queue: Queue) -> None:
    """Do what pytest does with all tests with those of the queue."""
    for share in queue:
        for item, following in zip(share, (*share[1:], session), strict=True):
            # The session in a test's place: what fixtures have for files ends with the share.
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)


@contextmanager
def turn(path: HostPath, *, alone: bool) -> Iterator[None]:
    """Let a test run: beside those of other sessions that do this with ``path``, or alone.

    Who wants to be alone keeps the door, so that nobody enters while it waits for the others.
    """
    with open(f"{path}.door", "w") as door, open(f"{path}.room", "w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(door, fcntl.LOCK_UN)
        yield
