"""Subordinate ids: a real mapping by newuidmap(1) and newgidmap(1), as subuid(5) grants it."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import subprocess

from xbuild.errors import HostUnable
from xbuild.plan.identities import ALLOW_NEWUIDMAP, SHIFTED_COUNT
from xbuild.plan.restrictions import why_no_user_namespace
from xbuild.record import HostPath
from xbuild.sandbox import _linux
from xbuild.sandbox.probes.finding import Circumstances, Finding, find_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.host import Host, SubIds

CHECK = "subordinate ids"
_FIRST_ID = 100000  # SUB_UID_MIN of login.defs(5)
_NO_HELPER = (
    "install newuidmap and newgidmap (package uidmap in Debian and Ubuntu, shadow-utils in Fedora,"
    " shadow in Arch, openSUSE and Gentoo, shadow-uidmap in Alpine)"
)


def probe_subordinate_ids(circumstances: Circumstances) -> Finding:
    """Map this user's subordinate ids in a user namespace."""
    host = circumstances.host
    if host.privileged:
        return Finding(CHECK, "n/a", "root has all ids")
    if host.euid == 0:
        return _ids_of_namespace(host)
    if not (host.sub_uids and host.sub_gids):
        user = _user_name(host.euid)
        missing = "/etc/subuid" if not host.sub_uids else "/etc/subgid"
        detail = f"{missing} grants {user} no ids: chown and other users fail inside"
        return Finding(CHECK, "missing", detail, how_to_get_ids(host.euid))
    if not host.has_newuidmap:
        detail = "newuidmap or newgidmap is not on PATH: chown and other users fail inside"
        return Finding(CHECK, "missing", detail, _NO_HELPER)
    if host.newuidmap_is_held_back:
        detail = "newuidmap gains too little in this container: chown and other users fail inside"
        return Finding(CHECK, "missing", detail, ALLOW_NEWUIDMAP)
    return find_out(CHECK, lambda: _map_all(host), why_no_user_namespace)


def how_to_get_ids(uid: int) -> str:
    """Return the command that grants a user a range that nobody else has."""
    first = _first_free()
    span = f"{first}-{first + SHIFTED_COUNT - 1}"
    return f"as root: usermod --add-subuids {span} --add-subgids {span} {_user_name(uid)}"


def _ids_of_namespace(host: Host) -> Finding:
    uids, gids = (sum(span.count for span in ids) for ids in (host.own_uids, host.own_gids))
    detail = f"root of a user namespace with {uids} user and {gids} group ids"
    if min(uids, gids) >= SHIFTED_COUNT:
        return Finding(CHECK, "ok", detail)
    fix = "give the outer container a range of 65536 ids, see /proc/self/uid_map"
    return Finding(CHECK, "missing", f"{detail}: chown to others fails inside", fix)


def _map_all(host: Host) -> str:
    target = _waiting_in_user_namespace()
    try:
        _run_helper("newuidmap", target, host.euid, host.sub_uids)
        _run_helper("newgidmap", target, host.egid, host.sub_gids)
        with open(f"/proc/{target}/uid_map", encoding="ascii") as file:
            mapped = sum(int(line.split()[2]) for line in file)
    finally:
        os.kill(target, signal.SIGKILL)
        os.waitpid(target, 0)
    return f"{mapped} user ids, your own and {host.sub_uids[0].start} onwards, were mapped"


def _waiting_in_user_namespace() -> int:
    """Return a child that waits in a new user namespace, and dies with this process."""
    entered, ready = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _linux.unshare(_linux.CLONE_NEWUSER)
            _linux.prctl(_linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            os.write(ready, b"\0")
            signal.pause()
        finally:
            os._exit(1)
    os.close(ready)
    if not os.read(entered, 1):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return child


def _run_helper(program: str, pid: int, own: int, spans: tuple[SubIds, ...]) -> None:
    argv = [program, str(pid), "0", str(own), "1"]
    inside = 1
    for span in spans:
        argv += [str(inside), str(span.start), str(span.count)]
        inside += span.count
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        said = (answer.stderr.strip().splitlines() or ["it does not say why"])[0]
        raise HostUnable(
            f"{program} refused the ids that /etc/subuid and /etc/subgid grant: {said}",
            f"{program} must be set-user-ID root or have file capabilities (ls -l, getcap), and no"
            " no_new_privs or nosuid mount may be in its way",
        )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _first_free() -> int:
    """Return an id from which on no subordinate id is granted to anyone."""
    ends = [_FIRST_ID]
    for path in (HostPath("/etc/subuid"), HostPath("/etc/subgid")):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                rows = [line.strip().split(":") for line in file]
        except OSError:
            continue
        ends += [int(row[1]) + int(row[2]) for row in rows if "".join(row[1:3]).isdigit()]
    return max(ends)
