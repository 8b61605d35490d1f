"""Run a plan: fork its children, write the id map, relay the terminal, return the exit status."""

from __future__ import annotations

import os

from xbuild.errors import EXIT_FAILED, EXIT_REBOOT, EXIT_TIMEOUT, SetupFailed
from xbuild.plan.copies import CopyIn, CopyOut
from xbuild.plan.lifecycle import LimitTime, RegisterMachine
from xbuild.plan.limits import LimitResources
from xbuild.plan.networks import AttachUserNetwork, AttachVeth
from xbuild.plan.steps import BecomeInit, EnterNamespaces, OpenImage, ServeFilesystem
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
from xbuild.sandbox.namespaces import KeptPidNamespace, write_outer_map
from xbuild.sandbox.signals import Forwarding
from xbuild.sandbox.standing import Standing

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from xbuild.errors import XbuildError
    from xbuild.plan.steps import IdMap, Plan
    from xbuild.sandbox.cgroups import ControlGroups
    from xbuild.sandbox.console import Console, ShownConsole
    from xbuild.sandbox.deadline import Deadline
    from xbuild.sandbox.entry import Entry
    from xbuild.sandbox.machined import Registration
    from xbuild.sandbox.networks import NetworkLine
    from xbuild.sandbox.porter import Porter
    from xbuild.sandbox.terminal import Relay

    Shown = Relay | Console | ShownConsole
else:
    import _signal as signal  # signal itself imports enum


class Container:
    """One run of a plan. Nothing of it is left when ``run`` returns or its process dies."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.target = plan.target
        self._reserve = -1
        self._deadline: Deadline | None = None
        self.remarks: tuple[str, ...] = ()  # what a person should know once it has run
        self.last_output = b""  # of the command, where a terminal or a tap has shown it to us

    def run(self) -> int:
        """Run the command and return its exit status, 128+N after signal N.

        To be called in a program's main thread, the only one that may handle signals. Raises
        SetupFailed when a step could not be applied, CommandNotFound or CommandNotExecutable when
        the command could not be executed.
        """
        _open_standard_descriptors()
        # Where descriptors run out, one is needed to say so: a module is read then.
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._run()
        except OSError as error:
            if error.errno not in (_linux.EMFILE, _linux.ENFILE):
                raise
            raise SetupFailed(
                f"Cannot start a container: {error.strerror}", "ulimit -n shows the limit"
            ) from error
        finally:
            self._give_up_reserve()

    def _give_up_reserve(self) -> None:
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def _run(self) -> int:
        with (
            Forwarding() as forwarding,
            Standing(self._plan) as standing,
            self._limited_resources() as groups,
        ):
            status = self._run_once(forwarding, standing, groups)
            if self._plan.command.init is not None:
                while status == EXIT_REBOOT and forwarding.unheard is None:
                    forwarding.pause()
                    standing.begin_again()
                    status = self._run_once(forwarding, standing, groups)
                standing.status = status = 0 if status == EXIT_REBOOT else status
        return status

    def _run_once(
        self, forwarding: Forwarding, standing: Standing, groups: ControlGroups | _Nothing
    ) -> int:
        relay = self._console_for(self._plan.command.terminal)
        ending = Reports() if reports_at_end(self._plan) else None
        console = relay.sender if relay is not None else None
        with self._network() as network, self._porter() as porter:
            lines = Lines(
                Reports(),
                console,
                ending,
                standing.handover,
                standing.locks,
                network.descriptor,
                porter.lines,
                self._outputs(),
                groups.delegated,
                self._sources(),
            )
            try:
                with groups.entered():
                    watched = self._start(lines)
                try:
                    forwarding.begin(watched.pid, self._heard)
                    standing.enlist()
                    lines.close_here()
                    network.serve()
                    with (
                        self._registered(watched.pid, standing),
                        self._limited_time(watched.pid, porter) as deadline,
                    ):
                        self._prepare(lines.reports, standing.entry)
                        self._attend(relay, watched)
                        report = lines.reports.receive()
                        watched.wait_for_last_steps()
                        if self._plan.command.init is None:
                            standing.withdraw()
                        status = watched.wait()
                    if report is None and ending is not None:
                        report = ending.receive()
                finally:
                    watched.end()
            finally:
                lines.close()
            not_copied = porter.failures()
            self.remarks = (*groups.what_was_hit(), *not_copied)
            status = status or (EXIT_FAILED if not_copied else 0)
            standing.status = EXIT_TIMEOUT if deadline.has_passed else status
        if report is not None:
            from xbuild.sandbox.failure import explain_report  # off the start path

            raise explain_report(report, self._plan)
        deadline.raise_if_passed()
        return status

    def _outputs(self) -> tuple[int, int]:
        """Return what becomes the command's descriptors 1 and 2, -1 for what stays as it is."""
        assert not self._plan.command.piped  # TappedContainer runs such a plan
        return (-1, -1)

    def _sources(self) -> tuple[int, ...]:
        """Return where what is written to those comes out."""
        return ()

    def _console_for(self, terminal: tuple[int, ...]) -> Shown | None:
        if not terminal:
            return None
        from xbuild.sandbox.terminal import Relay  # off the start path

        if self._plan.command.init is not None and not (os.isatty(0) and os.isatty(1)):
            from xbuild.sandbox.console import ShownConsole

            return ShownConsole()
        return Relay(terminal)

    def _prepare(self, reports: Reports, entry: Entry | None) -> None:
        """Get ready for its beginning, of which ``reports`` tells, before there is more to do."""

    def _attend(self, console: Shown | None, watched: Watched) -> None:
        """Do what there is to do while the container lives, and return once it has ended."""
        if console is not None:
            console.run(watched.has_ended)
            self.last_output = console.last_output()
            if self._plan.command.init is not None and not watched.has_ended():
                os.kill(watched.pid, signal.SIGHUP)  # the terminal is gone, and is not its own

    def _heard(self, number: int) -> None:
        """Take note of a signal that was passed on."""

    def _limited_time(self, pid: int, porter: Porter | _Nothing) -> Deadline | _Forever:
        limit = next((step for step in self._plan.steps if isinstance(step, LimitTime)), None)
        if limit is None:
            return _Forever()
        return self._time_limit(limit, pid, porter)

    def _time_limit(self, limit: LimitTime, pid: int, porter: Porter | _Nothing) -> Deadline:
        from xbuild.sandbox.deadline import Deadline  # off the start path

        self._deadline = Deadline(limit, pid, porter.pid, self._deadline)
        self._deadline.keeps_names = all("P" in e.flags for e in self._plan.host_entries)
        return self._deadline

    def _porter(self) -> Porter | _Nothing:
        if not any(isinstance(step, CopyIn | CopyOut) for step in self._plan.steps):
            return _Nothing()
        from xbuild.sandbox.porter import Porter  # off the start path

        return Porter(self._plan)

    def _network(self) -> NetworkLine | _Nothing:
        attached = AttachUserNetwork | AttachVeth
        step = next((step for step in self._plan.steps if isinstance(step, attached)), None)
        if step is None:
            return _Nothing()
        from xbuild.sandbox.networks import NetworkLine  # off the start path

        return NetworkLine(step)

    def _registered(self, pid: int, standing: Standing) -> Registration | _Nothing:
        step = next((step for step in self._plan.steps if isinstance(step, RegisterMachine)), None)
        if step is None or standing.entry is None:
            return _Nothing()
        from xbuild.sandbox.machined import Registration  # off the start path

        return Registration(step, standing.entry.name, pid)

    def _limited_resources(self) -> ControlGroups | _Nothing:
        limit = next((step for step in self._plan.steps if isinstance(step, LimitResources)), None)
        if limit is None:
            return _Nothing()
        from xbuild.sandbox.cgroups import ControlGroups  # off the start path

        return ControlGroups(limit)

    def _start(self, lines: Lines) -> Watched:
        outer = outer_user_namespace(self._plan)
        if outer is not None:
            return self._start_supervisor(lines, outer)
        try:
            with KeptPidNamespace():
                first = ProcessOne(self._plan, lines)
        except OSError as error:
            raise self._cannot_fork(error) from error
        watched = self._watch(first.pid, first)
        try:
            first.write_maps()
        except OSError as error:
            watched.end()
            raise self._cannot_fork(error) from error
        return watched

    def _start_supervisor(self, lines: Lines, outer: IdMap) -> Watched:
        launcher = os.getpid()
        gates = MapGates()
        try:
            pid = os.fork()
        except OSError as error:
            gates.close()
            raise self._explained(error, 0) from error
        if pid == 0:
            in_child(lambda: supervise(self._plan, lines, gates, launcher))
        watched = self._watch(pid, gates)
        try:
            if outer.writer != "self" and gates.wanted.wait():
                write_outer_map(outer, pid)
                gates.written.open()
        except OSError as error:
            watched.end()
            raise self._explained(error, 0) from error
        except BaseException:
            watched.end()
            raise
        return watched

    def _watch(self, pid: int, held: ProcessOne | MapGates) -> Watched:
        return Watched(pid, held)

    def _cannot_fork(self, error: OSError) -> XbuildError:
        return self._explained(error, boundary_of(self._plan))

    def _explained(self, error: OSError, index: int) -> XbuildError:
        self._give_up_reserve()
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
    outer = next(s for s in plan.steps if isinstance(s, EnterNamespaces | BecomeInit))
    return outer.id_map if isinstance(outer, EnterNamespaces) else None


class _Forever:
    """The deadline of a run that has none."""

    has_passed = False

    def __enter__(self) -> _Forever:
        return self

    def __exit__(self, *_exception: object) -> None:
        return

    def raise_if_passed(self) -> None:
        """Do nothing: it never passes."""


class _Nothing:
    """The control groups of a run without limits, and the network of one that has none to make."""

    descriptor = -1
    lines = (-1, -1)
    pid = -1
    delegated = ""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_exception: object) -> None:
        return

    def what_was_hit(self) -> tuple[str, ...]:
        """Return that no limit was reached."""
        return ()

    def entered(self) -> _Nothing:
        """Return a context in which nothing is entered."""
        return self

    def serve(self) -> None:
        """Do nothing: nobody asks."""

    def failures(self) -> tuple[str, ...]:
        """Return that nothing went wrong."""
        return ()


class Watched:
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
            self._status = self._reap(os.WNOHANG)
        return self._status is not None

    def wait_for_last_steps(self) -> None:
        """Wait until only the kernel has work to do for the child, or until it is gone."""
        if self._status is None:
            if isinstance(self._held, ProcessOne):
                self._held.wait_for_last_steps()
            else:
                self.wait()

    def wait(self) -> int:
        """Wait for the child and return its exit status as a shell would show it."""
        if self._status is None:
            self._status = self._reap(0)
            assert self._status is not None  # it was waited for
        return self._status

    def _reap(self, flags: int) -> int | None:
        pid, wait_status = os.waitpid(self.pid, flags)
        return init.exit_status_of(wait_status) if pid else None

    def end(self) -> None:
        """Kill the child, and with it the container, unless it has ended."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        self._held.close()


def _open_standard_descriptors() -> None:
    # A pipe must never become descriptor 0, 1 or 2 of the command.
    while True:
        fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)
