"""Entering namespaces and writing id maps: unshare(2), user_namespaces(7), newuidmap(1)."""

from __future__ import annotations

import os

from xbuild.errors import SetupFailed
from xbuild.plan.steps import EnterNamespaces, ForkGuestInit
from xbuild.sandbox import _linux
from xbuild.sandbox.init import wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.steps import IdMap, IdRange, Namespace, Plan, Step

_FLAGS = {
    "user": _linux.CLONE_NEWUSER,
    "mount": _linux.CLONE_NEWNS,
    "pid": _linux.CLONE_NEWPID,
    "ipc": _linux.CLONE_NEWIPC,
    "uts": _linux.CLONE_NEWUTS,
    "cgroup": _linux.CLONE_NEWCGROUP,
    "network": _linux.CLONE_NEWNET,
}
_LIMITED: dict[str, str] = {"mount": "mnt", "network": "net"}  # kernel/ucount.c


def flags_of(step: EnterNamespaces) -> int:
    """Return the CLONE_NEW* bits of a step."""
    flags = 0
    for name in step.namespaces:
        flags |= _FLAGS[name]
    return flags


def forbid_namespaces(limits: int, kind: Namespace) -> None:
    """Set to 0 how many namespaces of a kind the current user namespace may have.

    ``limits`` is a descriptor of /proc/sys/user, in which everyone sees the values of the user
    namespace that they are in. Raises OSError.
    """
    _write(limits, f"max_{_LIMITED.get(kind, kind)}_namespaces", b"0")


def map_text(ranges: tuple[IdRange, ...]) -> bytes:
    """Return the lines of a uid_map or gid_map."""
    lines = (f"{span.inside} {span.outside} {span.count}\n" for span in ranges)
    return "".join(lines).encode()


def write_map(id_map: IdMap, proc_fd: int) -> None:
    """Write both maps of the process whose /proc directory ``proc_fd`` is."""
    if id_map.writer == "self":
        # Whoever has no privilege in the namespace above must give this up: setgroups(2) could
        # drop a group that denies access.
        _write(proc_fd, "setgroups", b"deny")
    _write(proc_fd, "uid_map", map_text(id_map.uids))
    _write(proc_fd, "gid_map", map_text(id_map.gids))


def write_outer_map(id_map: IdMap, pid: int) -> None:
    """Write the id maps of a process in a user namespace below this one. Raises OSError."""
    if id_map.writer == "newuidmap":
        _run_map_helper("newuidmap", pid, id_map.uids)
        _run_map_helper("newgidmap", pid, id_map.gids)
        return
    proc_fd = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    write_map(id_map, proc_fd)
    os.close(proc_fd)


def _run_map_helper(program: str, pid: int, ranges: tuple[IdRange, ...]) -> None:
    argv = [program, str(pid)]
    for span in ranges:
        argv += [str(span.inside), str(span.outside), str(span.count)]
    if wait_for(os.posix_spawnp(program, argv, os.environ)) != 0:
        raise SetupFailed(
            f"{program} refused the subordinate ids for this container (its message is above)",
            "compare /etc/subuid and /etc/subgid with xbuild run --dry-run, see subuid(5)",
        )


def _write(directory: int, name: str, content: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error
    finally:
        os.close(fd)


def open_user_namespaces(plan: Plan) -> dict[IdMap, int]:
    """Return a descriptor of a user namespace for each id map that a mount of ``plan`` needs.

    To be called before a new PID namespace is unshared: the maps are written by way of /proc. A
    child that has ended holds each namespace until it is waited for, its descriptor open.
    """
    maps = (getattr(step, "id_map", None) for step in plan.steps if not _enters(step))
    return {id_map: _new_user_namespace(id_map) for id_map in set(maps) if id_map is not None}


def _enters(step: Step) -> bool:
    return isinstance(step, EnterNamespaces | ForkGuestInit)


def _new_user_namespace(id_map: IdMap) -> int:
    child = _linux.clone_ended(_linux.CLONE_NEWUSER)
    try:
        proc_fd = os.open(f"/proc/{child}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        write_map(id_map, proc_fd)
        fd = os.open("ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd)
        os.close(proc_fd)
        return fd
    finally:
        os.waitpid(child, 0)


class KeptPidNamespace:
    """Leave this process's later children in the PID namespace that they would have been in."""

    def __enter__(self) -> None:
        self._fd = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def __exit__(self, *_exception: object) -> None:
        _linux.setns(self._fd, _linux.CLONE_NEWPID)
        os.close(self._fd)
