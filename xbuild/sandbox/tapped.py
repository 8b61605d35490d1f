"""A container whose output passes through the launcher (``tap``), and whose life is told of."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from xbuild.record import replace
from xbuild.sandbox.cgroups import ControlGroups
from xbuild.sandbox.container import Container, Watched
from xbuild.sandbox.terminal import Relay
from xbuild.sandbox.usage import MeasuredWatched

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from xbuild.plan.lifecycle import LimitTime
    from xbuild.plan.steps import Plan
    from xbuild.sandbox.assembly import MapGates, ProcessOne
    from xbuild.sandbox.channel import Reports
    from xbuild.sandbox.container import Shown, _Nothing
    from xbuild.sandbox.deadline import Deadline, Process
    from xbuild.sandbox.entry import Entry
    from xbuild.sandbox.porter import Porter
    from xbuild.sandbox.tap import Tap
    from xbuild.sandbox.usage import Usage

    class Observer(Protocol):
        """Who is told what becomes of a run, in the launcher."""

        def command_began(self, name: str | None) -> None:
            """Take note that it runs, in a container listed as ``name``, None for not at all."""

        def command_ended(self) -> None:
            """Take note that the container is gone, and all output passed on."""

        def time_is_up(self, why: str, processes: tuple[Process, ...]) -> None:
            """Take note that the clock is about to end the run, which has these processes."""


class TappedContainer(Container):
    """One run of a plan made for a request that is ``piped``; ``tap`` sees what it writes."""

    def __init__(
        self,
        plan: Plan,
        tap: Tap,
        observer: Observer | None = None,
        patience_s: Mapping[int, float] | None = None,
    ) -> None:
        """Make one that a signal ends for good after its time in ``patience_s``, if it has one.

        That holds where the run's time is limited at all.
        """
        super().__init__(plan)
        self._patience_s = patience_s or {}
        self._tap = tap
        self._observer = observer
        self._groups: ControlGroups | None = None
        self.usage: Usage | None = None  # once it has run

    def _run(self) -> int:
        try:
            return super()._run()
        finally:
            self._tap.close()
            self.last_output = self._tap.tail()
            self.remarks = (*self.remarks, *self._tap.losses())

    def _outputs(self) -> tuple[int, int]:
        return self._tap.open(self._plan.command)

    def _sources(self) -> tuple[int, ...]:
        return self._tap.sources()

    def _console_for(self, terminal: tuple[int, ...]) -> Shown | None:
        console = super()._console_for(terminal)
        if isinstance(console, Relay):
            console.tap = self._tap
        return console

    def _watch(self, pid: int, held: ProcessOne | MapGates) -> Watched:
        return MeasuredWatched(pid, held)

    def _limited_resources(self) -> ControlGroups | _Nothing:
        groups = super()._limited_resources()
        if isinstance(groups, ControlGroups):
            self._groups = groups
        return groups

    def _heard(self, number: int) -> None:
        if self._deadline is not None and number in self._patience_s:
            self._tap.hurry()
            self._deadline.end_within(self._patience_s[number])

    def _time_limit(self, limit: LimitTime, pid: int, porter: Porter | _Nothing) -> Deadline:
        deadline = super()._time_limit(limit, pid, porter)
        deadline.when_it_passes = self._time_is_up
        return deadline

    def _time_is_up(self, why: str, processes: tuple[Process, ...]) -> None:
        self._tap.hurry()
        if self._observer is not None:
            self._observer.time_is_up(why, processes)

    def _prepare(self, reports: Reports, entry: Entry | None) -> None:
        name = None if entry is None else entry.name
        self._tap.when_ready(reports.descriptor(), lambda events: self._began(events, name))

    def _attend(self, console: Shown | None, watched: Watched) -> None:
        super()._attend(console, watched)
        self._tap.run(watched.has_ended)
        self.usage = self._used(watched)
        if self._observer is not None:
            self._observer.command_ended()

    def _began(self, events: int, name: str | None) -> None:
        if self._observer is not None and not events & select.POLLIN:  # that is a failure's report
            self._observer.command_began(name)

    def _used(self, watched: Watched) -> Usage | None:
        assert isinstance(watched, MeasuredWatched)
        peak = None if self._groups is None else self._groups.peak_memory()
        if watched.usage is None or peak is None:
            return watched.usage
        return replace(watched.usage, peak_memory=peak, peak_of="container")
