"""Process 1 of a container: it starts the command, reaps, forwards signals, ends with it.

qemu-user must never be process 1: a signal with a fatal default action leaves it hanging. After
the root was switched nothing here may import a module (see ``apply``).
"""

from __future__ import annotations

import os

from xbuild.sandbox import _linux, signals
from xbuild.sandbox.channel import Report
from xbuild.sandbox.command import become, close_all_but, spawn
from xbuild.sandbox.service import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from xbuild.plan.steps import Exec, Plan
    from xbuild.sandbox.assembly import Lines
    from xbuild.sandbox.disks import AttachedDisk
    from xbuild.sandbox.guest_init import GuestInit
    from xbuild.sandbox.stage import Stage
else:
    import _signal as signal  # signal itself imports enum

_SIGNAL_BASE = 128
_LOOK_EVERY_S = 1.0  # at a guest's process 1


def exit_status_of(wait_status: int) -> int:
    """Return the status a shell would show: the exit code, or 128 plus the signal's number."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else _SIGNAL_BASE - code


def wait_for(pid: int) -> int:
    """Wait for one child and return its exit status as a shell would show it."""
    return exit_status_of(os.waitpid(pid, 0)[1])


def run(plan: Plan, stage: Stage, lines: Lines, index: int) -> NoReturn:
    """Start the command, then be its init until it ends. Never returns."""
    reporting = set(lines.reports.descriptors())
    lock, control = (-1, -1) if lines.handover is None else lines.handover.take()
    kept = {*_kept_to_the_end(stage, lines), lock, control}
    guest = stage.guest_init
    waiting = () if guest is None else guest.descriptors()
    close_all_but({*kept, *reporting, *waiting, *lines.outputs, *_descriptors_of(lines)})
    signals.hold_back_for_init()
    command = plan.command
    service = Service(control, plan)
    child = 0 if command.is_only_held else _start(command, guest, lines, index)
    close_all_but({*_descriptors_of(lines), *kept, *waiting})
    _linux.prctl_name(b"xbuild-init")
    service.begin()
    status = _serve_until(child, service, guest)
    if stage.at_end:
        signals.ignore_forwarded()  # it is what the rest was for
    for act in stage.at_end:
        act()
    if stage.disk is not None:
        _write_back(stage.disk, lines, index)
    os._exit(status)


def _start(command: Exec, guest: GuestInit | None, lines: Lines, index: int) -> int:
    terminal = lines.console.hand_over() if lines.console is not None else None
    if guest is not None:
        return guest.begin(terminal)
    if terminal is None and command.uid == command.gid == 0:
        return spawn(command, lines.reports, index, lines.outputs)
    child = os.fork()
    if child == 0:
        become(command, lines.reports, index, terminal, lines.outputs)
    return child


def _kept_to_the_end(stage: Stage, lines: Lines) -> set[int]:
    kept = {stage.binfmt, *lines.locks}
    if stage.disk is not None:
        kept |= stage.disk.descriptors()
    kept |= stage.kept
    if lines.ending is not None:
        kept.update(lines.ending.descriptors())
    return kept


def _write_back(disk: AttachedDisk, lines: Lines, index: int) -> None:
    signals.ignore_forwarded()  # once more would not make it quicker
    failed = disk.finish()
    if failed is not None and lines.ending is not None:
        volume, error = failed
        lines.ending.send(Report("flush", index, error.errno or 0, volume))


def _descriptors_of(lines: Lines) -> tuple[int, ...]:
    return () if lines.console is None else lines.console.descriptors()


def _serve_until(child: int, service: Service, guest: GuestInit | None) -> int:
    """Reap, forward and serve until the command ends; 0 is no command but a container held."""
    while True:
        match (
            signals.next_for_init()
            if guest is None
            else signals.next_for_init_within(_LOOK_EVERY_S)
        ):
            case None:
                assert guest is not None
                if status := guest.look():
                    return status
            case signal.SIGCHLD:
                for pid, wait_status in _reaped():
                    if pid == child:
                        status = exit_status_of(wait_status)
                        return status if guest is None else guest.status_of(status)
                    service.command_ended(pid, exit_status_of(wait_status))
            case signal.SIGIO:
                service.look()
            case signals.END_ALL:
                signals.send(-1, signal.SIGKILL)  # not process 1 itself: kill(2)
                if not child:
                    return 0
            case signal.SIGTERM | signal.SIGINT | signal.SIGHUP if not child:
                return 0
            case number if guest is not None:
                guest.pass_on(number)
            case number if child:
                signals.send_as_terminal(child, number)
            case _:
                continue


def _reaped() -> list[tuple[int, int]]:
    found = []
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(ended)
    except ChildProcessError:
        pass
    return found
