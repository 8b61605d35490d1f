"""What a container must leave alone on this host, as a value to compare before and after.

Independent of xbuild's own certificate on purpose: the tests of that would otherwise test itself.
Sessions of tests that run at once see each other's mounts and loop devices. What is in the
directories of another session is left out. A loop device may show a file that is in nobody's, as
one of a mount namespace or an unlinked one: if it is another session's, it goes with its test.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import time
from collections.abc import Mapping

from xbuild.record import Record, replace

_BINFMT = "/proc/sys/fs/binfmt_misc"
_SETTLE_S = 15.0
_TEST_OF_OTHERS_S = 120.0

REACHABLE = "/var/tmp/xbuild-tests-"
"""How the directories of sessions begin that every user can enter."""

_OF_A_SESSION = re.compile(
    rf"(?:{REACHABLE}|{re.escape(tempfile.gettempdir())}/pytest-of-[^/]+/pytest-)[^/]+"
)
_LOOP = re.compile(r"loop\d+")


class HostState(Record):
    """Mount table, binfmt entries, loop devices, device nodes, network interfaces."""

    mounts: Mapping[str, str]
    binfmt: Mapping[str, str]
    loops: Mapping[str, str]
    nodes: Mapping[str, str]
    interfaces: Mapping[str, str]
    sysctls: Mapping[str, str]


def observe(own: tuple[str, ...] = ()) -> HostState:
    """Look at the host, in a few milliseconds.

    ``own`` are this session's directories; without them nothing is taken for another session's.
    """
    return HostState(
        mounts=_mounts(own),
        binfmt={name: _text(f"{_BINFMT}/{name}") for name in _names(_BINFMT) if name != "register"},
        loops={n: file for n, file in _loops().items() if not _is_of_others(file, own)},
        nodes=_nodes(own),
        interfaces={name: _interface(name) for name in _names("/sys/class/net")},
        sysctls={name: _text(f"/proc/sys/{name}") for name in _SYSCTLS},
    )


_SYSCTLS = ("kernel/hostname", "kernel/domainname", "kernel/core_pattern", "net/ipv4/ip_forward")


def differences(before: HostState, own: tuple[str, ...] = ()) -> list[str]:
    """Name what is not as it was, after giving the kernel a moment to finish tearing down.

    And other sessions the time to end what they may be at.
    """
    began = time.monotonic()
    found = _changes(before, own)
    while found:
        is_certain = any(_is_certainly_ours(line, own) for line in found)
        if time.monotonic() > began + (_SETTLE_S if is_certain else _TEST_OF_OTHERS_S):
            break
        time.sleep(0.05)
        still = _changes(before, own)
        found = [line for line in found if line in still]
    return found


def _is_certainly_ours(change: str, own: tuple[str, ...]) -> bool:
    return not own or not change.startswith("loops: ") or any(place in change for place in own)


def _changes(before: HostState, own: tuple[str, ...]) -> list[str]:
    after = observe(own)
    if own:
        gone = before.loops.keys() - after.loops.keys()
        kept = {n: f for n, f in before.loops.items() if n not in gone or f.startswith(own)}
        before = replace(before, loops=kept)
    return [
        line
        for field in before.__match_args__
        for line in _compare(field, getattr(before, field), getattr(after, field))
    ]


def _compare(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [
        f"{what}: {name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _is_of_others(path: str, own: tuple[str, ...]) -> bool:
    """Tell whether a path is in a directory of a session of tests that is not ``own``."""
    found = _OF_A_SESSION.match(path)
    return found is not None and bool(own) and found[0] not in own


def _mounts(own: tuple[str, ...]) -> dict[str, str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as rows:
        found = [row.rstrip("\n") for row in rows]
    return {row.split()[0]: row for row in found if not _is_of_others(row.split()[4], own)}


def _loops() -> dict[str, str]:
    """Return the files that loop devices show; for a loop device of another one, that one's.

    With the number of times that the kernel has had another disk until then (diskseq).
    """
    found = {
        name: _text(f"/sys/block/{name}/loop/backing_file")
        for name in _names("/sys/block")
        if _LOOP.fullmatch(name) and os.path.exists(f"/sys/block/{name}/loop")
    }
    shown = {name: found.get(file.removeprefix("/dev/"), file) for name, file in found.items()}
    return {n: f"{file} ({_text(f'/sys/block/{n}/diskseq')})" for n, file in shown.items()}


def _is_spare(node: str, loops: Mapping[str, str], own: tuple[str, ...]) -> bool:
    """Tell whether a node comes and goes with what other sessions do to loop devices.

    So do partitions, and devices beyond the eight that are always there: of these there are as
    many as were ever in use at once.
    """
    loop = _LOOP.match(node)
    if loop is None or not own or (node == loop[0] and int(loop[0][4:]) < 8):
        return False
    return _is_of_others(loops[loop[0]], own) if loop[0] in loops else node == loop[0]


def _nodes(own: tuple[str, ...]) -> dict[str, str]:
    found, loops = {}, _loops()
    for name in _names("/dev"):
        if _is_spare(name, loops, own):
            continue
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
