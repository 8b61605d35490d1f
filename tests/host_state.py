"""What a container must leave alone on this host, as a value to compare before and after.

Independent of xbuild's own certificate on purpose: the tests of that would otherwise test itself.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping

from xbuild.record import Record

_BINFMT = "/proc/sys/fs/binfmt_misc"
_SETTLE_S = 2.0


class HostState(Record):
    """Mount table, binfmt entries, loop devices, device nodes, network interfaces."""

    mounts: Mapping[str, str]
    binfmt: Mapping[str, str]
    loops: Mapping[str, str]
    nodes: Mapping[str, str]
    interfaces: Mapping[str, str]
    sysctls: Mapping[str, str]


def observe() -> HostState:
    """Look at the host, in a few milliseconds."""
    return HostState(
        mounts=_mounts(),
        binfmt={name: _text(f"{_BINFMT}/{name}") for name in _names(_BINFMT) if name != "register"},
        loops={name: _text(f"/sys/block/{name}/loop/backing_file") for name in _loops()},
        nodes=_nodes(),
        interfaces={name: _interface(name) for name in _names("/sys/class/net")},
        sysctls={name: _text(f"/proc/sys/{name}") for name in _SYSCTLS},
    )


_SYSCTLS = ("kernel/hostname", "kernel/domainname", "kernel/core_pattern", "net/ipv4/ip_forward")


def differences(before: HostState) -> list[str]:
    """Name what is not as it was, after giving the kernel a moment to finish tearing down."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        after = observe()
        found = [
            line
            for field in before.__match_args__
            for line in _compare(field, getattr(before, field), getattr(after, field))
        ]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _compare(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [
        f"{what}: {name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _mounts() -> dict[str, str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as rows:
        return {row.split(" ", 1)[0]: row.rstrip("\n") for row in rows}


def _loops() -> list[str]:
    blocks = _names("/sys/block")
    return [b for b in blocks if b.startswith("loop") and os.path.exists(f"/sys/block/{b}/loop")]


def _nodes() -> dict[str, str]:
    found = {}
    for name in _names("/dev"):
        try:
            status = os.lstat(f"/dev/{name}")
        except FileNotFoundError:
            continue
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            owner = f"{status.st_uid}:{status.st_gid}"
            found[name] = f"{stat.filemode(status.st_mode)} {owner} {status.st_rdev:#x}"
    return found


def _interface(name: str) -> str:
    directory = f"/sys/class/net/{name}"
    return f"{_text(directory + '/operstate')} flags {_text(directory + '/flags')}"


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, PermissionError):
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError as error:
        return f"unreadable ({error.strerror})"
