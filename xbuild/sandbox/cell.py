"""A cell: where programs of the host's read what a stranger made, and have nothing besides.

blkid(8), debugfs(8), unsquashfs(1) and their like take an image apart, and whoever made it may have
made it to take them over. In a cell there are the host's programs, read-only, a /proc that shows
the cell's own processes, and the descriptors that a program is given: no file of the host's, no
network, no other process, no id that owns anything, no capability but one to open those descriptors
anew. One cell serves many programs, since making it takes longer than most of them take. Off the
start path.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import marshal
import os
import resource
import select
import signal
import socket

from xbuild.errors import HostUnable
from xbuild.plan import steps
from xbuild.plan.host import Host
from xbuild.plan.parsing_ids import parsing_ids
from xbuild.plan.privileges import CAPABILITIES, FilterCalls, LimitPrivileges
from xbuild.plan.restrictions import why_no_user_namespace
from xbuild.record import GuestPath, HostPath, Record
from xbuild.sandbox import _linux, mounts, signals
from xbuild.sandbox.as_root import become_root_of
from xbuild.sandbox.assembly import die_with_parent
from xbuild.sandbox.confined import assemble_view
from xbuild.sandbox.namespaces import forbid_namespaces
from xbuild.sandbox.privileges import filter_calls, limit_privileges
from xbuild.sandbox.stage import directory, symlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn, Self

    from xbuild.plan.steps import IdMap
    from xbuild.sandbox.stage import Stage

_APART = _linux.CLONE_NEWPID | _linux.CLONE_NEWNET | _linux.CLONE_NEWIPC | _linux.CLONE_NEWUTS
_MESSAGE_LIMIT = 4096  # bytes
_DESCRIPTORS_LIMIT = 16
_LAST_DESCRIPTOR = 2**32 - 1
_PROCESSES = 4096  # and threads: unsquashfs starts several for each processor
_MEMORY = 4 << 30  # bytes of each program in a cell with bounds
_LARGEST_FILE = 256 << 20  # bytes
_ENDING_PATIENCE_S = 30.0


class Program(Record):
    """A program to start: ``path`` as the host has it, ``argv`` with its name.

    ``descriptors`` are (number that it sees, the caller's descriptor). ``largest_file`` is how
    much it may write in a cell with bounds, in bytes.
    """

    path: HostPath
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    descriptors: tuple[tuple[int, int], ...]
    largest_file: int | None = None


class Refused(HostUnable):
    """This host lets no cell be made."""


class Cell:
    """Processes that start programs in a place of their own; they end with close().

    ``descriptors`` are those that programs open anew by their /proc/self/fd/N, which has to work
    for a cell to be one; others can be given to a program as they are. ``may_write`` is for
    programs that repair: they can open their descriptors for writing, where they are open for it.
    Without ``has_bounds`` programs may have memory and room as their work takes.
    """

    def __init__(
        self, descriptors: tuple[int, ...], *, may_write: bool = False, has_bounds: bool = True
    ) -> None:
        """Make it. Raises Refused."""
        self._has_bounds = has_bounds
        self._pid = 0
        self._pidfd = -1
        owners = tuple((s.st_uid, s.st_gid) for s in map(os.fstat, descriptors))
        own = (os.geteuid(), os.getegid())
        failure: OSError | None = None
        for ids in parsing_ids(Host.probe(), (own, *owners)):
            try:
                self._start(ids, descriptors, may_write)
            except OSError as error:
                failure = error
            else:
                return
        assert failure is not None
        raise _refused(failure) from failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End whatever runs in it; a second call does nothing."""
        if self._pid:
            self._link.close()
            ended = select.select([self._pidfd], [], [], _ENDING_PATIENCE_S)[0]
            if not ended:
                os.kill(self._pid, signal.SIGKILL)
            os.close(self._pidfd)
            with contextlib.suppress(ChildProcessError):  # SIGCHLD inherited as ignored: wait(2)
                os.waitpid(self._pid, 0)
            self._pid = 0

    def start(self, program: Program) -> None:
        """Start a program; wait() waits for it. One at a time. Raises OSError if it cannot be."""
        limit = program.largest_file if self._has_bounds else None
        numbers = tuple(number for number, _ in program.descriptors)
        asked = (program.path, program.argv, dict(program.environment), numbers, limit)
        content = os.memfd_create("asked")  # longer than what a message may be
        try:
            with open(content, "wb", closefd=False) as file:
                file.write(marshal.dumps(asked))
            given = [content, *(fd for _, fd in program.descriptors)]
            socket.send_fds(self._link, [b"\0"], given)
        finally:
            os.close(content)
        number = self._hear(None)
        if number:
            raise OSError(number, os.strerror(number), program.path)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return how the program ended, as a wait status; None when the time is over."""
        return self._hear(timeout_s)

    def _hear(self, timeout_s: float | None) -> int | None:
        if not select.select([self._link], [], [], timeout_s)[0]:
            return None
        answer = self._link.recv(_MESSAGE_LIMIT)
        if not answer:
            raise OSError(errno.EPIPE, "the processes that read it ended")
        number: int = marshal.loads(answer)
        return number

    def _start(self, ids: IdMap, descriptors: tuple[int, ...], may_write: bool) -> None:
        """Make it with these ids. Raises OSError, also where a descriptor cannot be opened anew."""
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            self._link.close()
            _be_outside(theirs, ids, descriptors, may_write, self._has_bounds)
        self._pidfd = os.pidfd_open(self._pid)
        theirs.close()
        answer = self._link.recv(_MESSAGE_LIMIT)
        number, reason, subject = marshal.loads(answer) if answer else (errno.EPIPE, "", "")
        if number:
            self.close()
            raise OSError(number, reason, subject or None)


def _refused(error: OSError) -> Refused:
    if error.filename is not None:
        return Refused(f"{error.strerror} at {error.filename}", "see xbuild doctor")
    found = why_no_user_namespace(error.errno or 0)
    return Refused(found.cause, found.hint)


def _be_outside(
    link: socket.socket,
    ids: IdMap,
    descriptors: tuple[int, ...],
    may_write: bool,
    has_bounds: bool,
) -> NoReturn:
    """Enter namespaces, start process 1 in them, and end as it does.

    Process 1 ends when nobody has the other end of ``link`` any more. Not by PR_SET_PDEATHSIG,
    which is the death of the thread that forked.
    """
    try:
        os.setsid()  # ^C is the caller's, who ends this
        signals.restore_defaults()
        become_root_of(ids)
        _linux.unshare(_APART)
        first = os.fork()
        if first == 0:
            _be_first(link, descriptors, may_write, has_bounds)
        _linux.close_range(3, _LAST_DESCRIPTOR)
        os.waitpid(first, 0)
    except (OSError, HostUnable) as error:
        _report(link, error)
    finally:
        os._exit(1)


def _report(link: socket.socket, error: OSError | HostUnable) -> None:
    failure = (
        (errno.EPERM, error.message, "")
        if isinstance(error, HostUnable)
        else (error.errno or errno.EIO, error.strerror or "", str(error.filename or ""))
    )
    with contextlib.suppress(OSError):
        link.send(marshal.dumps(failure))


def _be_first(
    link: socket.socket, descriptors: tuple[int, ...], may_write: bool, has_bounds: bool
) -> NoReturn:
    """Be process 1: assemble the cell, give up what is not needed any more, serve."""
    try:
        die_with_parent()
        limits = os.open("/proc/sys/user", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _enter_cell()
        for fd in descriptors:
            flags = os.O_RDWR if may_write else os.O_RDONLY
            os.close(os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_CLOEXEC))
        _give_up(limits, may_write)
        _limit(has_bounds)
        _linux.close_range(3, link.fileno() - 1)
        _linux.close_range(link.fileno() + 1, _LAST_DESCRIPTOR)
        link.send(marshal.dumps((0, "", "")))
    except OSError as error:
        _report(link, error)
        os._exit(1)
    _serve(link)


def _enter_cell() -> None:
    """Have a view with the host's programs, /proc and /dev/null, all of it read-only."""
    stage = assemble_view()
    for name in ("/proc", "/dev", "/etc"):
        directory(stage, steps.Directory(GuestPath(name), 0o755))
    # Without it resize2fs takes a file system for mounted.
    symlink(stage, steps.Symlink(GuestPath("/etc/mtab"), "/proc/self/mounts"))
    _show_proc(stage)
    null = HostPath("/dev/null")
    mounts.bind(
        stage,
        steps.Bind(null, GuestPath(null), read_only=True, create="file", nodev=False),
    )
    _linux.mount_setattr(
        stage.view, set_=_linux.MOUNT_ATTR_RDONLY, recursive=False, label="the cell's root"
    )
    mounts.pivot(stage)


def _show_proc(stage: Stage) -> None:
    attributes = mounts.PLAIN_DATA | _linux.MOUNT_ATTR_RDONLY
    try:
        mount = mounts.new_mount("proc", (("subset", "pid"),), attributes)
    except PermissionError:
        # An outer container masks parts of its own, which must not be seen uncovered here.
        mounts.bind(stage, steps.Bind(HostPath("/proc"), GuestPath("/proc"), read_only=True))
        return
    mounts.attach(stage, mount, GuestPath("/proc"))


def _give_up(limits: int, may_write: bool) -> None:
    """Leave programs one capability: over files of the ids that are mapped, and in this cell."""
    with contextlib.suppress(OSError):  # an outer container made /proc/sys read-only
        forbid_namespaces(limits, "user")
    kept = "dac_override" if may_write else "dac_read_search"
    limit_privileges(LimitPrivileges(tuple(n for n in CAPABILITIES if n != kept), True))
    filter_calls(FilterCalls("refuse"))
    if may_write:
        filter_calls(FilterCalls("no-flush"))  # whoever had it repaired flushes
    _linux.prctl(_linux.PR_SET_DUMPABLE, 0)  # no program in here traces this one


def _limit(has_bounds: bool) -> None:
    """Set what is inherited by every program, from its first instruction on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (_PROCESSES, _PROCESSES))
    if has_bounds:
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))


def _serve(link: socket.socket) -> NoReturn:
    """Start what is asked for, one at a time, until nobody asks any more."""
    try:
        while True:
            message, given, _, _ = socket.recv_fds(link, 1, _DESCRIPTORS_LIMIT)
            if not message:
                break
            try:
                pid = _spawn(given)
            except OSError as error:
                link.send(marshal.dumps(error.errno or errno.EIO))
                continue
            link.send(marshal.dumps(0))
            status = _wait(pid, link)
            if status is None:
                break
            link.send(marshal.dumps(status))
    finally:
        os._exit(0)  # and the kernel ends all others in this PID namespace


def _spawn(given: list[int]) -> int:
    content = os.pread(given[0], os.fstat(given[0]).st_size, 0)
    path, argv, environment, numbers, limit = marshal.loads(content)
    beyond = max(numbers) + 1  # where none of them is in the way of another
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond) for fd in given[1:]]
    for fd in given:
        os.close(fd)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, _LARGEST_FILE))
    try:
        pid = os.posix_spawn(
            path,
            argv,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, number)
                for source, number in zip(sources, numbers, strict=True)
            ],
        )
    finally:
        for fd in sources:
            os.close(fd)
    return pid


def _wait(pid: int, link: socket.socket) -> int | None:
    """Return a program's wait status, None when the one who asked for it is gone."""
    pidfd = os.pidfd_open(pid)
    try:
        has_ended = pidfd in select.select([pidfd, link.fileno()], [], [])[0]
    finally:
        os.close(pidfd)
    if not has_ended:
        return None
    return os.waitpid(pid, 0)[1]
