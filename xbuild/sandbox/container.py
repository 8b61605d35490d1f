"""Run a plan: fork its children, write the id map, relay the terminal, return the exit status."""

from __future__ import annotations

import os

from xbuild.errors import SetupFailed
from xbuild.plan.steps import EnterNamespaces, OpenImage, ServeFilesystem
from xbuild.sandbox import _linux, init
from xbuild.sandbox.assembly import (
    Lines,
    MapGates,
    ProcessOne,
    boundary_of,
    in_child,
    supervise,
)
from xbuild.sandbox.channel import Report, Reports
from xbuild.sandbox.namespaces import write_map
from xbuild.sandbox.signals import Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from xbuild.errors import XbuildError
    from xbuild.plan.steps import IdMap, IdRange, Plan
    from xbuild.sandbox.terminal import Relay
else:
    import _signal as signal  # signal itself imports enum


class Container:
    """One run of a plan. Nothing of it is left when ``run`` returns or its process dies."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def run(self) -> int:
        """Run the command and return its exit status, 128+N after signal N.

        To be called in a program's main thread, the only one that may handle signals. Raises
        SetupFailed when a step could not be applied, CommandNotFound or CommandNotExecutable when
        the command could not be executed.
        """
        _open_standard_descriptors()
        relay = _relay_for(self._plan.command.terminal)
        ending = Reports() if reports_at_end(self._plan) else None
        lines = Lines(Reports(), relay.sender if relay is not None else None, ending)
        try:
            report, status = self._run(lines, relay)
        finally:
            lines.close()
        if report is not None:
            from xbuild.sandbox.failure import explain_report  # off the start path

            raise explain_report(report, self._plan)
        return status

    def _run(self, lines: Lines, relay: Relay | None) -> tuple[Report | None, int]:
        with Forwarding() as forwarding:
            watched = self._start(lines)
            try:
                forwarding.begin(watched.pid)
                lines.close_here()
                if relay is not None:
                    relay.run(watched.has_ended)
                report = lines.reports.receive()
                status = watched.wait()
                if report is None and lines.ending is not None:
                    report = lines.ending.receive()
            finally:
                watched.end()
        return report, status

    def _start(self, lines: Lines) -> _Watched:
        outer = outer_user_namespace(self._plan)
        if outer is not None:
            return self._start_supervisor(lines, outer)
        try:
            with _KeptPidNamespace():
                first = ProcessOne(self._plan, lines)
        except OSError as error:
            raise self._cannot_fork(error) from error
        watched = _Watched(first.pid, first)
        try:
            first.write_maps()
        except OSError as error:
            watched.end()
            raise self._cannot_fork(error) from error
        return watched

    def _start_supervisor(self, lines: Lines, outer: IdMap) -> _Watched:
        launcher = os.getpid()
        gates = MapGates()
        try:
            pid = os.fork()
        except OSError as error:
            gates.close()
            raise self._explained(error, 0) from error
        if pid == 0:
            in_child(lambda: supervise(self._plan, lines, gates, launcher))
        watched = _Watched(pid, gates)
        try:
            if outer.writer != "self" and gates.wanted.wait():
                _write_outer_map(outer, pid)
                gates.written.open()
        except OSError as error:
            watched.end()
            raise self._explained(error, 0) from error
        except BaseException:
            watched.end()
            raise
        return watched

    def _cannot_fork(self, error: OSError) -> XbuildError:
        return self._explained(error, boundary_of(self._plan))

    def _explained(self, error: OSError, index: int) -> XbuildError:
        from xbuild.sandbox.failure import explain_report  # off the start path

        subject = str(error.filename or "")
        return explain_report(Report("step", index, error.errno or 0, subject), self._plan)


def reports_at_end(plan: Plan) -> bool:
    """Tell whether a run has to do with a disk image that can fail it when the command has run."""
    return any(
        (isinstance(step, OpenImage) and step.is_exclusive) or isinstance(step, ServeFilesystem)
        for step in plan.steps
    )


def outer_user_namespace(plan: Plan) -> IdMap | None:
    """Return the id map of the user namespace entered before process 1, if there is one."""
    first = plan.steps[0]
    return first.id_map if isinstance(first, EnterNamespaces) else None


class _KeptPidNamespace:
    """Leave this process's later children in the PID namespace that they would have been in."""

    def __enter__(self) -> None:
        self._fd = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def __exit__(self, *_exception: object) -> None:
        _linux.setns(self._fd, _linux.CLONE_NEWPID)
        os.close(self._fd)


class _Watched:
    """A child that is waited for once, in whichever place first sees its end.

    ``held`` is given up then: it must stay open until the child needs it no more.
    """

    def __init__(self, pid: int, held: ProcessOne | MapGates) -> None:
        self.pid = pid
        self._held = held
        self._status: int | None = None

    def has_ended(self) -> bool:
        """Tell whether the child is gone, without waiting."""
        if self._status is None:
            pid, wait_status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = init.exit_status_of(wait_status)
        return self._status is not None

    def wait(self) -> int:
        """Wait for the child and return its exit status as a shell would show it."""
        if self._status is None:
            self._status = init.wait_for(self.pid)
        return self._status

    def end(self) -> None:
        """Kill the child, and with it the container, unless it has ended."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        self._held.close()


def _write_outer_map(id_map: IdMap, pid: int) -> None:
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
    if init.wait_for(os.posix_spawnp(program, argv, os.environ)) != 0:
        raise SetupFailed(
            f"{program} refused the subordinate ids for this container (its message is above)",
            "compare /etc/subuid and /etc/subgid with xbuild run --dry-run, see subuid(5)",
        )


def _open_standard_descriptors() -> None:
    # A pipe must never become descriptor 0, 1 or 2 of the command.
    while True:
        fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)


def _relay_for(terminal: tuple[int, ...]) -> Relay | None:
    if not terminal:
        return None
    from xbuild.sandbox.terminal import Relay

    return Relay(terminal)
