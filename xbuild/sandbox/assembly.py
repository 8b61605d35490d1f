"""The children of a run, from the first fork to exec.

The *supervisor* stays outside the PID namespace, owns the outer user namespace and writes the id
maps of the inner one. *Process 1* assembles the view, enters the inner namespaces and becomes the
container's init. Each dies with its parent (PR_SET_PDEATHSIG), and with process 1 the kernel ends
everything else in the container.
"""

from __future__ import annotations

import os

from xbuild.plan.steps import BecomeInit, EnterNamespaces, Exec
from xbuild.sandbox import _linux, init
from xbuild.sandbox.apply import apply
from xbuild.sandbox.channel import Gate, Report
from xbuild.sandbox.namespaces import flags_of, open_user_namespaces, write_map
from xbuild.sandbox.stage import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from xbuild.plan.steps import IdMap, Plan
    from xbuild.sandbox.channel import Reports
    from xbuild.sandbox.terminal import ConsoleSender
else:
    import _signal as signal  # signal itself imports enum


class Lines:
    """What a run's children were given: how to report, to ask for id maps, to hand over a tty."""

    def __init__(self, reports: Reports, console: ConsoleSender | None) -> None:
        self.reports = reports
        self.console = console
        self.map_wanted = Gate()
        self.map_written = Gate()


def supervise(plan: Plan, lines: Lines, launcher: int) -> NoReturn:
    """Be the supervisor: run the steps before BecomeInit, fork process 1, end as it ends."""
    index = 0
    try:
        _die_with_parent()
        if os.getppid() != launcher:
            os._exit(1)
        os.setsid()
        os.umask(0)
        stage = Stage(open_user_namespaces(plan))
        boundary = next(i for i, step in enumerate(plan.steps) if isinstance(step, BecomeInit))
        for index in range(boundary):
            _outer_step(stage, plan, index, lines)
        _become_init(stage, plan, boundary, lines)
    except OSError as error:
        _fail(lines, Report("step", index, error.errno or 0, str(error.filename or "")))


def _outer_step(stage: Stage, plan: Plan, index: int, lines: Lines) -> None:
    step = plan.steps[index]
    if isinstance(step, EnterNamespaces):
        _enter_outer(step, lines)
    elif not isinstance(step, BecomeInit | Exec):
        apply(stage, step)


def _enter_outer(step: EnterNamespaces, lines: Lines) -> None:
    _linux.unshare(flags_of(step))
    _die_with_parent()  # a change of credentials clears it: prctl(2)
    if step.id_map is None:
        return
    if step.id_map.writer == "self":
        proc_fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        write_map(step.id_map, proc_fd)
        os.close(proc_fd)
    else:
        lines.map_wanted.open()
        if not lines.map_written.wait():
            os._exit(1)
    _become_root(step.id_map)


def _become_root(id_map: IdMap) -> None:
    if id_map.has_setgroups:
        os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _die_with_parent()


def _become_init(stage: Stage, plan: Plan, boundary: int, lines: Lines) -> NoReturn:
    proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    entered, mapped = Gate(), Gate()
    first = os.fork()
    if first == 0:
        os.close(proc_fd)
        _process_one(stage, plan, boundary, lines, (entered, mapped))
    if lines.console is not None:
        lines.console.close()
    init.forward_signals_to(first)
    inner = next(
        (s for s in plan.steps[boundary:] if isinstance(s, EnterNamespaces) and s.id_map), None
    )
    if inner is not None and entered.wait():
        _write_inner_map(inner.id_map, proc_fd, first)
        mapped.open()
    lines.reports.close_sender()
    os._exit(init.wait_for(first))


def _write_inner_map(id_map: IdMap | None, proc_fd: int, pid: int) -> None:
    assert id_map is not None
    directory = os.open(str(pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc_fd)
    write_map(id_map, directory)
    os.close(directory)


def _process_one(
    stage: Stage, plan: Plan, boundary: int, lines: Lines, gates: tuple[Gate, Gate]
) -> NoReturn:
    index = boundary
    try:
        _die_with_parent()
        for index in range(boundary + 1, len(plan.steps) - 1):
            step = plan.steps[index]
            if isinstance(step, EnterNamespaces):
                _enter_inner(stage, step, gates)
            elif not isinstance(step, BecomeInit | Exec):
                apply(stage, step)
        index = len(plan.steps) - 1
        # Process 1 shares the guest's user namespace: not dumpable, so that the guest's root can
        # neither trace it nor read its environment, memory and descriptors (ptrace(2)).
        _linux.prctl(_linux.PR_SET_DUMPABLE, 0)
        init.run(plan.command, stage, lines, index)
    except OSError as error:
        _fail(lines, Report("step", index, error.errno or 0, str(error.filename or "")))


def _enter_inner(stage: Stage, step: EnterNamespaces, gates: tuple[Gate, Gate]) -> None:
    entered, mapped = gates
    flags = flags_of(step)
    assert step.id_map is not None
    if step.id_map in stage.user_namespaces:
        _linux.setns(stage.user_namespaces[step.id_map], _linux.CLONE_NEWUSER)
        entered.close()
    else:
        _linux.unshare(_linux.CLONE_NEWUSER)
        entered.open()
        if not mapped.wait():
            os._exit(1)
    _become_root(step.id_map)
    _linux.unshare(flags & ~_linux.CLONE_NEWUSER)
    stage.look_from_here()


def _die_with_parent() -> None:
    _linux.prctl(_linux.PR_SET_PDEATHSIG, signal.SIGKILL)


def _fail(lines: Lines, report: Report) -> NoReturn:
    lines.reports.send(report)
    os._exit(125)
