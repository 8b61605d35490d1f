"""The children of a run, from the first fork to exec.

*Process 1* of the new PID namespace assembles the view, enters the inner namespaces and becomes
the container's init. Its parent *attends* it: writes its id maps, forwards signals, waits. That is
the launcher itself where no outer user namespace is entered, else a *supervisor* which lives in
that namespace. Each child dies with its parent (PR_SET_PDEATHSIG), and with process 1 the kernel
ends everything else in the container.
"""

from __future__ import annotations

import os
import sys

from xbuild.errors import EXIT_FAILED
from xbuild.plan.lifecycle import Enlist, LimitTime, LinkJournal, LockTree, RegisterMachine
from xbuild.plan.limits import LimitResources
from xbuild.plan.steps import BecomeInit, EnterNamespaces, Exec, ForkGuestInit
from xbuild.sandbox import _linux, init, signals
from xbuild.sandbox.apply import apply
from xbuild.sandbox.channel import Gate, Report
from xbuild.sandbox.namespaces import flags_of, open_user_namespaces, write_map
from xbuild.sandbox.stage import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import NoReturn

    from xbuild.plan.steps import IdMap, Plan
    from xbuild.sandbox.channel import Reports
    from xbuild.sandbox.disks import AttachedDisk
    from xbuild.sandbox.entry import Handover
    from xbuild.sandbox.terminal import ConsoleSender
else:
    import _signal as signal  # signal itself imports enum


# Done before process 1, as is all up to BecomeInit.
_LAUNCHERS = LockTree | Enlist | LimitTime | LimitResources | LinkJournal | RegisterMachine


class Lines:
    """What a run's children were given: how to report, and to whom to hand a terminal.

    ``ending`` carries a report from the end of the run, where there is something to write back.
    By ``handover`` process 1 gets its entry in the list, if it is to have one; ``locks`` are kept
    open to the end.
    On ``network`` process 1 asks the launcher for one, -1 where there is none to be had. ``copies``
    are where process 1 gets what is copied in, and puts what is copied out. ``outputs`` become the
    command's descriptors 1 and 2, where they are not -1; the launcher alone has their ``sources``.
    ``group`` is the run's control group of version 2, where the guest has one of its own in it.
    """

    def __init__(
        self,
        reports: Reports,
        console: ConsoleSender | None,
        ending: Reports | None = None,
        handover: Handover | None = None,
        locks: tuple[int, ...] = (),
        network: int = -1,
        copies: tuple[int, int] = (-1, -1),
        outputs: tuple[int, int] = (-1, -1),
        group: str = "",
        sources: tuple[int, ...] = (),
    ) -> None:
        self.reports = reports
        self.console = console
        self.ending = ending
        self.handover = handover
        self.locks = locks
        self.network = network
        self.copies = copies
        self.outputs = outputs
        self.group = group
        self.sources = sources

    def close_here(self) -> None:
        """Let go of the children's ends in a process that only attends."""
        self.close_beginning()
        if self.ending is not None:
            self.ending.close_sender()

    def close(self) -> None:
        """Let go of all of them in the launcher; a second call does nothing."""
        self.close_here()
        self.reports.close()
        if self.ending is not None:
            self.ending.close()

    def close_beginning(self) -> None:
        """Let go of those that serve until the command has started."""
        self.reports.close_sender()
        if self.console is not None:
            self.console.close()
        if self.handover is not None:
            self.handover.close()
        for fd in {self.network, *self.copies, *self.outputs}:
            if fd >= 0:
                os.close(fd)
        self.network = -1
        self.copies = self.outputs = (-1, -1)


class ProcessOne:
    """The first process of a container, seen from its parent."""

    def __init__(self, plan: Plan, lines: Lines, disk: AttachedDisk | None = None) -> None:
        """Fork it in a new PID namespace, in which the caller's later children would be too.

        ``disk`` has what is served of an image, which it inherits. Raises OSError.
        """
        self._proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._entered, self._mapped = Gate(), Gate()
        self._inner = _inner_map(plan)
        self._namespaces: dict[IdMap, int] = {}
        try:
            # Before the PID namespace: their maps are written by way of this process's /proc.
            self._namespaces = open_user_namespaces(plan)
            _linux.unshare(_linux.CLONE_NEWPID)
            self.pid = os.fork()
        except OSError:
            self.close()
            raise
        if self.pid == 0:
            gates, opened = (self._entered, self._mapped), self._namespaces
            in_child(lambda: _process_one(Stage(opened, disk), plan, lines, gates))
        self._close_namespaces()

    def close(self) -> None:
        """Give up what process 1 is watched by, once it has ended; a second call does nothing."""
        self._close_namespaces()
        self._entered.close()
        self._mapped.close()
        if self._proc_fd >= 0:
            os.close(self._proc_fd)
            self._proc_fd = -1

    def _close_namespaces(self) -> None:
        while self._namespaces:
            os.close(self._namespaces.popitem()[1])

    def write_maps(self) -> None:
        """Write its inner id maps once it asks; it may die instead. Raises OSError."""
        if self._inner is None or not self._entered.wait():
            return
        directory = self.open_directory()
        try:
            write_map(self._inner, directory)
        finally:
            os.close(directory)
        self._mapped.open()

    def wait_for_last_steps(self) -> None:
        """Return once it has closed its descriptors, as the last it does of its own accord.

        What follows is the kernel's: it takes the namespaces apart before it tells of the end.
        """
        while self._entered.wait():
            pass

    def open_directory(self) -> int:
        """Return a descriptor of its directory in the proc of the host. Raises OSError."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        return os.open(str(self.pid), flags, dir_fd=self._proc_fd)


def _inner_map(plan: Plan) -> IdMap | None:
    """Return the map that process 1 waits for; None where it enters a namespace made before."""
    steps = plan.steps[boundary_of(plan) :]
    inner = next((s.id_map for s in steps if isinstance(s, EnterNamespaces) and s.id_map), None)
    shared = any(getattr(s, "id_map", None) == inner for s in steps if not _enters(s))
    return None if shared else inner


def _enters(step: object) -> bool:
    return isinstance(step, EnterNamespaces)


def boundary_of(plan: Plan) -> int:
    """Return the index of the step at which process 1 begins."""
    return next(i for i, step in enumerate(plan.steps) if isinstance(step, BecomeInit))


def in_child(work: Callable[[], NoReturn]) -> NoReturn:
    """Do the work of a forked child, which must never return into its parent's code."""
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(EXIT_FAILED)


class MapGates:
    """How a supervisor asks the launcher for the maps of the outer user namespace."""

    def __init__(self) -> None:
        self.wanted = Gate()
        self.written = Gate()

    def close(self) -> None:
        """Give up both in this process."""
        self.wanted.close()
        self.written.close()


def supervise(plan: Plan, lines: Lines, gates: MapGates, launcher: int) -> NoReturn:
    """Be the supervisor: enter the outer user namespace, fork process 1, end as it ends."""
    index, stage = 0, Stage({})
    try:
        die_with_parent()
        if os.getppid() != launcher:
            os._exit(EXIT_FAILED)
        for fd in lines.sources:  # or who writes would not be told that nobody reads
            os.close(fd)
        os.setsid()
        for index in range(boundary_of(plan)):
            step = plan.steps[index]
            if isinstance(step, EnterNamespaces):
                _enter_outer(step, gates)
            elif not isinstance(step, BecomeInit | ForkGuestInit | Exec | _LAUNCHERS):
                apply(stage, step)
        if os.getppid() != launcher:  # it died while a change of credentials left us unbound
            os._exit(EXIT_FAILED)
        index = boundary_of(plan)
        first = ProcessOne(plan, lines, stage.disk)
        signals.forward_to(first.pid)
        first.write_maps()
    except OSError as error:
        _fail(lines, index, error)
    if stage.disk is not None and lines.ending is not None:
        _attend_servers(first.pid, stage.disk, lines, lines.ending, index)
    lines.close_here()
    os._exit(init.wait_for(first.pid))


def _attend_servers(
    first: int, disk: AttachedDisk, lines: Lines, ending: Reports, index: int
) -> NoReturn:
    from xbuild.sandbox import serving  # loaded before, by the steps that started them

    lines.close_beginning()
    serving.let_go(disk)
    os._exit(serving.attend(first, disk, ending, index))


def _enter_outer(step: EnterNamespaces, gates: MapGates) -> None:
    assert step.id_map is not None
    _linux.unshare(flags_of(step))
    die_with_parent()  # a change of credentials clears it: prctl(2)
    if step.id_map.writer == "self":
        proc_fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        write_map(step.id_map, proc_fd)
        os.close(proc_fd)
    else:
        gates.wanted.open()
        if not gates.written.wait():
            os._exit(EXIT_FAILED)
    _become_root(step.id_map)
    # Another number than before clears it too, and a process that is not dumpable has a /proc
    # directory of the host's root: process 1's maps could not be written (proc_pid_uid_map(5)).
    _linux.prctl(_linux.PR_SET_DUMPABLE, 1)


def _become_root(id_map: IdMap) -> None:
    if id_map.has_setgroups:
        os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    die_with_parent()


def _process_one(stage: Stage, plan: Plan, lines: Lines, gates: tuple[Gate, Gate]) -> NoReturn:
    first, last = boundary_of(plan) + 1, len(plan.steps) - 1
    index = first
    try:
        die_with_parent()
        if stage.disk is not None:
            _inherit_servers(stage.disk)
        mapped = gates[1]
        mapped.watch()
        os.setsid()
        stage.network = lines.network
        stage.copies = lines.copies
        stage.group = lines.group
        stage.kept.add(gates[0].descriptor())
        _leave_session_keyring()
        os.umask(0)
        for index in range(first, last):
            step = plan.steps[index]
            if isinstance(step, EnterNamespaces):
                _enter(stage, step, gates)
            elif isinstance(step, ForkGuestInit):
                _fork_guest_init(stage, step.id_map, plan, lines)
            elif not isinstance(step, BecomeInit | Exec | _LAUNCHERS):
                apply(stage, step)
        index = last
        # The parent may have died before it was bound, or while a change of credentials had undone
        # that; getppid(2) cannot tell across PID namespaces.
        if mapped.is_deserted():
            os._exit(EXIT_FAILED)
        # Process 1 shares the guest's user namespace: not dumpable, so that the guest's root can
        # neither trace it nor read its environment, memory and descriptors (ptrace(2)).
        _linux.prctl(_linux.PR_SET_DUMPABLE, 0)
        init.run(plan, stage, lines, index)
    except OSError as error:
        _fail(lines, index, error)


def _fork_guest_init(stage: Stage, id_map: IdMap, plan: Plan, lines: Lines) -> None:
    from xbuild.sandbox.guest_init import GuestInit  # off the start path

    def become_root() -> None:
        _become_root(id_map)

    stage.guest_init = GuestInit(stage, plan, lines, id_map, become_root)
    if stage.way_back >= 0:
        from xbuild.sandbox import delegation  # loaded before, by the step that went there

        delegation.go_back(stage)


def _inherit_servers(disk: AttachedDisk) -> None:
    from xbuild.sandbox import serving  # loaded before, by the steps that started them

    serving.inherit(disk)


def _leave_session_keyring() -> None:
    """Keep the keys of the login session from the guest, which would possess them."""
    try:
        _linux.join_new_session_keyring()
    except OSError as error:
        # No keyrings in this kernel, or an outer container's filter that binds the guest as well.
        if error.errno not in (_linux.ENOSYS, _linux.EPERM):
            raise


def _enter(stage: Stage, step: EnterNamespaces, gates: tuple[Gate, Gate]) -> None:
    if step.id_map is not None:
        _enter_user_namespace(stage, step.id_map, gates)
    _linux.unshare(flags_of(step) & ~_linux.CLONE_NEWUSER)
    stage.has_own_mounts |= "mount" in step.namespaces
    if step.id_map is not None:
        stage.look_from_here()


def _enter_user_namespace(stage: Stage, id_map: IdMap, gates: tuple[Gate, Gate]) -> None:
    entered, mapped = gates
    if id_map in stage.user_namespaces:
        _linux.setns(stage.user_namespaces[id_map], _linux.CLONE_NEWUSER)
    else:
        _linux.unshare(_linux.CLONE_NEWUSER)
        entered.open()
        if not mapped.wait():
            os._exit(EXIT_FAILED)
    _become_root(id_map)


def die_with_parent() -> None:
    """Arrange for SIGKILL when the parent dies."""
    _linux.prctl(_linux.PR_SET_PDEATHSIG, signal.SIGKILL)


def _fail(lines: Lines, index: int, error: OSError) -> NoReturn:
    subject = str(error.filename or "")
    lines.reports.send(Report("step", index, error.errno or 0, subject))
    os._exit(EXIT_FAILED)
