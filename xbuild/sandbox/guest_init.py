"""The guest's own process 1: the command, where it wants the number 1 (``--as-pid1``, ``--boot``).

It is process 1 of a PID namespace within the container's. That namespace belongs to the guest's
user namespace, so that root inside may end it by reboot(2), which then shows in how its process 1
died: by SIGHUP to be started again, by SIGINT to be off (pid_namespaces(7)). /proc shows that
namespace, so it must be there before the view is: the process is forked early, and waits. xbuild's
process 1 stays above it, out of the guest's sight and reach, for those who join and for the end.

It also sees to what qemu-user cannot: the kernel drops signals with a default action for a process
1, so when qemu means to die of one it waits for ever. What it then looks like is known
(linux-user/signal.c: dump_core_and_abort), and it is ended in its place.

Off the start path: loaded for such commands, before the root is switched.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
from typing import TYPE_CHECKING

from xbuild.errors import EXIT_FAILED, EXIT_REBOOT, EXIT_SIGNAL_BASE
from xbuild.plan.privileges import FilterCalls, LimitPrivileges
from xbuild.plan.steps import EnterNamespaces
from xbuild.record import GuestPath, replace
from xbuild.sandbox import _linux, _unix, mounts, signals
from xbuild.sandbox.apply import apply
from xbuild.sandbox.channel import Report
from xbuild.sandbox.command import become
from xbuild.sandbox.namespaces import write_map

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from xbuild.plan.steps import IdMap, Plan
    from xbuild.sandbox.assembly import Lines
    from xbuild.sandbox.stage import Stage

_NEVER_BLOCKED = {signal.SIGKILL, signal.SIGSTOP, 32, 33}  # the last two are libc's: signal(7)
_FILES: dict[str, str] = {"ipc": "ipc", "uts": "uts", "network": "net", "mount": "mnt"}
_STATUS_BYTES = 65536
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Unheard:
    """Reports of a command that nobody waits for."""

    def send(self, report: Report) -> None:
        """Say nothing."""

    def descriptors(self) -> tuple[int, ...]:
        """Return that nothing has to stay open."""
        return ()


class GuestInit:
    """The waiting process, seen from process 1 above it; ``pid`` is its number there."""

    def __init__(
        self,
        stage: Stage,
        plan: Plan,
        lines: Lines,
        id_map: IdMap,
        become_root: Callable[[], None],
    ) -> None:
        """Fork it in a PID namespace that is of the user namespace with ``id_map``.

        That one is made unless the stage has it. What the caller forks from then on is in that PID
        namespace as well. Raises OSError.
        """
        self._command = plan.command
        self._init = plan.command.init
        self._was_asked = False
        inner = [step for step in plan.steps if isinstance(step, EnterNamespaces)][-1]
        self._entered = [_FILES[name] for name in inner.namespaces if name in _FILES]
        self._own = os.open("/proc/self/ns", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._line, theirs = _pair()
        user_namespace = stage.user_namespaces.get(id_map, -1)

        def wait_and_become(number: int) -> NoReturn:
            _wait_and_become(stage, plan, lines, theirs, number)

        helper = os.fork()
        if helper == 0:
            os.close(self._line)
            _in_child(lambda: _help(theirs, user_namespace, become_root, wait_and_become))
        os.close(theirs)
        if user_namespace < 0:
            _, (directory, stage.user_namespaces[id_map]) = _expect(self._line, 2)
            write_map(id_map, directory)
            os.close(directory)
            _unix.send(self._line, b"mapped")
        content, (namespace, self._status) = _expect(self._line, 2)
        os.waitpid(helper, 0)
        self.pid = int.from_bytes(content, "little")
        _linux.setns(namespace, _linux.CLONE_NEWPID)
        os.close(namespace)
        self._hanging = 0

    def descriptors(self) -> tuple[int, ...]:
        """Return what process 1 keeps open until the command is begun."""
        return (self._own, self._line, self._status)

    def new_proc(self) -> int:
        """Return a detached proc of its PID namespace, made by a process in it. Raises OSError."""
        ours, theirs = _pair()
        child = os.fork()
        if child == 0:
            _in_child(lambda: _make_proc(theirs))
        os.close(theirs)
        try:
            _, (mount,) = _expect(ours, 1)
        finally:
            os.close(ours)
            os.waitpid(child, 0)
        return mount

    def begin(self, terminal: str | None) -> int:
        """Have it join the namespaces of this process and become the command; returns ``pid``."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        joined = [os.open(name, flags, dir_fd=self._own) for name in self._entered]
        _unix.send(self._line, (terminal or "-").encode(), tuple(joined))
        for fd in (*joined, self._own, self._line):
            os.close(fd)
        return self.pid

    def pass_on(self, number: int) -> None:
        """Pass a signal on; what would end an ordinary command asks an init to stop, once.

        The second time, it is ended.
        """
        if self._init is None:
            signals.send_as_terminal(self.pid, number)
        elif number not in _ENDING:
            signals.send(self.pid, number)
        elif self._was_asked:
            if number != signal.SIGHUP:  # which a terminal that is gone may send more than once
                signals.send(self.pid, signal.SIGKILL)
        elif self._init.stop_signal:
            self._was_asked = True
            signals.send(self.pid, self._init.stop_signal)
        else:
            self._was_asked = True
            self._run_inside(self._init.stop_command)

    def _run_inside(self, argv: tuple[str, ...]) -> None:
        try:
            if os.fork() == 0:
                _in_child(lambda: self._become(argv))
        except OSError:
            self._was_asked = False  # no process can be had now; later, perhaps

    def _become(self, argv: tuple[str, ...]) -> NoReturn:
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        become(replace(self._command, argv=argv, terminal=(), init=None), _Unheard(), 0, None)

    def status_of(self, status: int) -> int:
        """Return what the end of the command means for the run, by its status as a shell has it.

        An init that was switched off has done what it should (pid_namespaces(7)).
        """
        if self._init is None:
            return status
        off, again = EXIT_SIGNAL_BASE + signal.SIGINT, EXIT_SIGNAL_BASE + signal.SIGHUP
        return {off: 0, again: EXIT_REBOOT, EXIT_REBOOT: EXIT_FAILED}.get(status, status)

    def look(self) -> int:
        """Return the status of one that hangs in wanting to die, which is ended; 0 for others."""
        found = pending_death(os.pread(self._status, _STATUS_BYTES, 0).decode(errors="replace"))
        if not found or found != self._hanging:
            self._hanging = found
            return 0
        os.kill(self.pid, signal.SIGKILL)  # it was so the last time, too
        os.waitpid(self.pid, 0)
        return EXIT_SIGNAL_BASE + found


def _pair() -> tuple[int, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ours.detach(), theirs.detach()


def _next(line: int) -> tuple[bytes, tuple[int, ...]]:
    """Wait for a message; an empty one once the other side is gone."""
    poll = select.poll()
    poll.register(line, select.POLLIN)
    poll.poll()
    return _unix.receive(line)


def _expect(line: int, count: int) -> tuple[bytes, tuple[int, ...]]:
    """Wait for a message with so many descriptors; another one says why there is none (errno)."""
    content, descriptors = _next(line)
    if len(descriptors) != count:
        number = int.from_bytes(content, "little") or errno.ESRCH
        raise OSError(number, os.strerror(number))
    return content, descriptors


def _in_child(work: Callable[[], NoReturn]) -> NoReturn:
    try:
        work()
    finally:
        os._exit(EXIT_FAILED)


def _help(
    line: int,
    user_namespace: int,
    become_root: Callable[[], None],
    wait_and_become: Callable[[int], NoReturn],
) -> NoReturn:
    """Fork the one that waits from within the user namespace, from which there is no way back."""
    try:
        if user_namespace >= 0:
            _linux.setns(user_namespace, _linux.CLONE_NEWUSER)
        else:
            _linux.unshare(_linux.CLONE_NEWUSER)
            flags = os.O_RDONLY | os.O_CLOEXEC
            own = [os.open(f"/proc/self{name}", flags) for name in ("", "/ns/user")]
            _unix.send(line, b"map", tuple(own))
            _next(line)
        become_root()
        _linux.unshare(_linux.CLONE_NEWPID)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            _in_child(lambda: wait_and_become(reading))
        os.write(writing, pid.to_bytes(4, "little"))
    except OSError as error:
        _unix.send(line, (error.errno or 0).to_bytes(4, "little"))
    os._exit(0)


def _wait_and_become(stage: Stage, plan: Plan, lines: Lines, line: int, number: int) -> NoReturn:
    own = [
        os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("ns/pid", "status")
    ]
    _unix.send(line, os.read(number, 4), tuple(own))
    content, namespaces = _next(line)
    if not namespaces:
        os._exit(EXIT_FAILED)
    index = len(plan.steps) - 1
    try:
        for fd in namespaces:
            _linux.setns(fd, 0)
        for index, step in enumerate(plan.steps):  # noqa: B007 - a report names the step
            if isinstance(step, LimitPrivileges | FilterCalls):
                apply(stage, step)
        _linux.prctl(_linux.PR_SET_DUMPABLE, 0)
    except OSError as error:
        lines.reports.send(Report("step", index, error.errno or 0, str(error.filename or "")))
        os._exit(EXIT_FAILED)
    terminal = content.decode()
    chosen = None if terminal == "-" else terminal
    command = plan.command
    if command.init is not None:
        command = replace(command, directory=GuestPath("/"))
    become(command, lines.reports, index, chosen, lines.outputs)


def _make_proc(line: int) -> NoReturn:
    try:
        _unix.send(line, b"\0", (mounts.new_mount("proc", (), mounts.PLAIN_DATA),))
    except OSError as error:
        _unix.send(line, (error.errno or 0).to_bytes(4, "little"))
    os._exit(0)


def pending_death(status: str) -> int:
    """Return the signal that a process, by its /proc/PID/status, wants to die of; 0 if none.

    It sleeps with every signal blocked but that one, which it leaves to the default action.
    """
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if fields.get("State", "").split()[:1] != ["S"]:
        return 0
    blocked, caught, ignored = (int(fields[key], 16) for key in ("SigBlk", "SigCgt", "SigIgn"))
    open_ones = {n for n in range(1, 65) if not blocked >> (n - 1) & 1} - _NEVER_BLOCKED
    if len(open_ones) != 1:
        return 0
    (number,) = open_ones
    return 0 if (caught | ignored) >> (number - 1) & 1 else number
