"""Ordinary users to run things as, made when root tests and removed at the session's end.

Each session has its own, named after its process: what a user may have, or has in /tmp, is shared
by all that runs as that user.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.patience import PATIENCE_S
from xbuild.record import Record

WITH_RANGE = "xbuild-test-"
WITHOUT_RANGE = "xbuild-plain-"
_MARK = "made by xbuild's tests"
_LOCK = "/run/lock/xbuild-tests.lock.change"
_RANGE_SIZE = 65536


class User(Record):
    """Someone to run commands as; ``has_range``: /etc/subuid and /etc/subgid grant ids."""

    name: str
    uid: int
    gid: int
    home: str
    has_range: bool

    @property
    def is_self(self) -> bool:
        """Tell whether it is who runs the tests."""
        return self.uid == os.geteuid()

    def argv(self, command: list[str]) -> list[str]:
        """Return the command line that runs ``command`` as this user."""
        if self.is_self:
            return command
        ids = [f"--reuid={self.uid}", f"--regid={self.gid}"]
        return ["setpriv", *ids, "--init-groups", "--inh-caps=-all", "--", *command]

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a fresh login of this user, and ``more``."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        names = {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "PATH": path}
        return {**names, "LANG": "C.UTF-8", "SHELL": "/bin/sh", **more}

    def run(
        self, command: list[str], *, timeout_s: float = PATIENCE_S, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` as this user, in its home; ``options`` are subprocess.run's."""
        settings: dict[str, Any] = {  # Any: what subprocess.run takes
            "capture_output": True,
            "text": True,
            "check": False,
            "cwd": self.home,
            "env": self.environment(),
            "stdin": subprocess.DEVNULL,
        } | options
        if "input" in options:
            del settings["stdin"]
        return subprocess.run(self.argv(command), timeout=timeout_s, **settings)


def current_user(home: str) -> User:
    """Return whoever runs the tests, with ``home`` to work in."""
    entry = pwd.getpwuid(os.geteuid())
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, home, has_range(entry.pw_name))


def has_range(name: str) -> bool:
    """Tell whether subordinate ids are granted to ``name``, users and groups both (subuid(5))."""
    return all(
        any(line.startswith(f"{name}:") for line in _lines(table))
        for table in ("/etc/subuid", "/etc/subgid")
    )


def _name_of(kind: str) -> str:
    return f"{kind}{os.getpid()}"


@contextmanager
def made_users() -> Iterator[None]:
    """Have both users of this session exist while the block runs; needs root."""
    names = [_name_of(kind) for kind in (WITH_RANGE, WITHOUT_RANGE)]
    with _alone():
        for name in _left_behind():
            _remove(name)
        for name in names:
            _make(name)
    try:
        yield
    finally:
        with _alone():
            for name in names:
                _remove(name)


@contextmanager
def _alone() -> Iterator[None]:
    """Let no other session make or remove users meanwhile."""
    with open(_LOCK, "w") as change:
        fcntl.flock(change, fcntl.LOCK_EX)
        yield


def _left_behind() -> list[str]:
    """Return users of sessions that were killed."""
    made = [entry.pw_name for entry in pwd.getpwall() if entry.pw_gecos == _MARK]
    ends = [(name, name.rpartition("-")[2]) for name in made]
    return [name for name, pid in ends if pid.isdigit() and not os.path.exists(f"/proc/{pid}")]


def known_user(kind: str, home: str) -> User:
    """Return this session's user of a kind, who is given the directory ``home``."""
    name = _name_of(kind)
    entry = pwd.getpwnam(name)
    os.makedirs(home, exist_ok=True)
    os.chown(home, entry.pw_uid, entry.pw_gid)
    return User(name, entry.pw_uid, entry.pw_gid, home, has_range(name))


def _make(name: str) -> None:
    if not _exists(name):
        home = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh"]
        _run(["useradd", "--system", "--user-group", "--comment", _MARK, *home, name])
    if name.startswith(WITH_RANGE) and not has_range(name):
        first = _first_free_id()
        ids = f"{first}-{first + _RANGE_SIZE - 1}"
        _run(["usermod", "--add-subuids", ids, "--add-subgids", ids, name])


def _remove(name: str) -> None:
    """Remove a user that the tests made, and no other; its ranges go with it."""
    if _exists(name) and pwd.getpwnam(name).pw_gecos == _MARK:
        _run(["userdel", name])


def _exists(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())


def _first_free_id() -> int:
    ends = [
        int(fields[1]) + int(fields[2])
        for table in ("/etc/subuid", "/etc/subgid")
        for fields in (line.split(":") for line in _lines(table))
        if len(fields) == 3
    ]
    return max([524288, *ends])


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def _run(command: list[str]) -> None:
    program = shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert program is not None, f"{command[0]} is missing (package passwd)"
    for pause_s in (0.5, 1.0, 2.0, 4.0, 8.0):  # who else changes /etc/passwd is soon done
        if subprocess.run([program, *command[1:]], capture_output=True).returncode == 0:
            return
        time.sleep(pause_s)
    subprocess.run([program, *command[1:]], check=True)
