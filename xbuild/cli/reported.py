"""A run that is told of as it goes: events for machines, groups and annotations for a CI's log.

Off the start path: loaded for ``--events``, ``--json`` and ``--ci``.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from typing import TYPE_CHECKING

from xbuild import __version__
from xbuild.cli import ci_marks
from xbuild.cli.event_place import TO_OUTPUT, open_place
from xbuild.cli.explained import explained
from xbuild.cli.output import note
from xbuild.cli.run import may_be_explained
from xbuild.errors import EXIT_FAILED, EXIT_SIGNAL_BASE, UsageError, XbuildError
from xbuild.plan.piping import with_pipes, without_terminal
from xbuild.sandbox.events import EventStream
from xbuild.sandbox.outlet import Outlet
from xbuild.sandbox.tap import Tap
from xbuild.sandbox.tapped import TappedContainer

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from xbuild.cli.options import Parsed
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Plan
    from xbuild.sandbox.container import Container
    from xbuild.sandbox.deadline import Process
else:
    import _signal as signal

_SUMMARY = "GITHUB_STEP_SUMMARY"
# How long the command may take to end in a job that was cancelled, so that time is left for what is
# copied out: GitHub sends SIGINT, SIGTERM after 7.5 seconds and SIGKILL after 2.5 more.
_OF_GITHUB = {int(signal.SIGINT): 5.0, int(signal.SIGTERM): 0.5}


class Reporting:
    """What is told of one run, to a stream of events and to a CI service, where there are such."""

    def __init__(self, events: EventStream | None, service: ci_marks.Service | None) -> None:
        self._events = events
        self._service = service
        self._marks = sys.stderr if events is not None and events.outlet.fd == 1 else sys.stdout
        self._began = time.monotonic()
        self._processes: tuple[Process, ...] = ()
        self._explanations: tuple[str, ...] = ()
        self._remarks: list[str] = []
        self._token = os.urandom(16).hex()

    @property
    def takes_output(self) -> bool:
        """Whether standard output is the events' own."""
        return self._events is not None and self._events.outlet.fd == 1

    def tap(self) -> Tap:
        """Return what the command's output goes through."""
        tap = Tap(passes_on=not self.takes_output)
        if self._events is not None:
            tap.add(self._events, self._events.outlet)
        return tap

    def begin(self, request: Request) -> None:
        """Say what was asked for."""
        if self._events is not None:
            self._events.started(__version__, request.target, request.command)
            self._events.step("plan")
        if self._service is not None:
            words = _words(request)
            title = f"xbuild run {shlex.quote(request.target)} -- {words}"
            self._mark(ci_marks.opening(self._service, title, int(time.time()), self._token))

    def planned(self, plan: Plan) -> None:
        """Say what a person should know beforehand."""
        if self._events is not None:
            for text in plan.notes:
                self._events.note(text)
            self._events.step("set-up")

    def command_began(self, name: str | None) -> None:
        """Pass on that it runs."""
        if self._events is not None:
            self._events.command_began(name)

    def command_ended(self) -> None:
        """Pass on that it has ended."""
        if self._events is not None:
            self._events.command_ended()

    def time_is_up(self, why: str, processes: tuple[Process, ...]) -> None:
        """Pass on that it hangs, or takes too long."""
        self._processes = processes
        if self._events is not None:
            self._events.time_is_up(why, processes)

    def remark(self, text: str) -> None:
        """Say what a person should know afterwards."""
        self._remarks.append(text)
        self._tell(text)

    def explain(self, texts: tuple[str, ...]) -> None:
        """Say what is known of a failure."""
        self._explanations = texts
        for text in texts:
            self._tell(text)

    def _tell(self, text: str) -> None:
        note(text)
        if self._events is not None:
            self._events.note(text)

    def end(
        self,
        request: Request,
        container: TappedContainer | None,
        tap: Tap,
        status: int,
        error: XbuildError | None,
    ) -> None:
        """Say what became of it."""
        usage = None if container is None else container.usage
        if self._events is not None:
            self._events.resources(usage, tap)
            self._events.exit(status, error)
            tap.flush()
            lost = self._events.outlet.lost
            if lost is not None:
                note(f"the run went on without its events, which nobody takes: {lost.strerror}")
        if self._service is not None:
            outcome = ci_marks.Outcome(
                _words(request),
                request.target,
                status,
                time.monotonic() - self._began,
                usage,
                tap.tail(),
                "" if error is None else error.message,
                "\n".join(self._explanations) if error is None else error.hint,
                self._processes,
                tuple(self._remarks),
            )
            self._show(self._service, outcome)

    def _show(self, service: ci_marks.Service, outcome: ci_marks.Outcome) -> None:
        self._mark(ci_marks.closing(service, int(time.time()), outcome.last, self._token))
        if service == "github":
            if outcome.status:
                self._mark(ci_marks.annotation(outcome))
            _append_summary(ci_marks.summary(outcome))
        note(ci_marks.figures(outcome))

    def _mark(self, text: str) -> None:
        if text and self._marks is not None:
            self._marks.write(text)
            self._marks.flush()


def with_output_seen(request: Request, parsed: Parsed) -> Request:
    """Return a request whose output passes through xbuild; no terminal where events take its place.

    Raises UsageError.
    """
    takes_output = _place(parsed) in (TO_OUTPUT, "1")
    return without_terminal(request) if takes_output else with_pipes(request)


def _place(parsed: Parsed) -> str | None:
    """Return where events go, None for nowhere. Raises UsageError."""
    place = parsed.one("events")
    if parsed.flags & {"json", "dry_run"} != {"json"}:
        return place
    if place is not None:
        raise UsageError(
            "--json is --events -, so that there is no other --events", "leave one of the two out"
        )
    return TO_OUTPUT


def run_reported(
    request: Request,
    parsed: Parsed,
    decide: Callable[[Request], Plan],
    run: Callable[[Container], int],
) -> int:
    """Plan by ``decide``, have ``run`` run it, and tell. Raises XbuildError subclasses."""
    choice = parsed.one("ci") or "off"
    service = None if choice == "off" else ci_marks.service_of(choice, os.environ)
    reporting = Reporting(_open_events(parsed), service)
    tap, container = reporting.tap(), None
    explanations: tuple[str, ...] = ()
    status, failure = EXIT_FAILED, None
    reporting.begin(request)
    try:
        plan = decide(request)
        reporting.planned(plan)
        patience_s = _OF_GITHUB if service == "github" else None
        container = TappedContainer(plan, tap, reporting, patience_s)
        status = run(container)
        if may_be_explained(request.command, status):
            explanations = explained(plan, status, tap.tail())
    except XbuildError as error:
        status, failure = error.exit_status, error
        if service == "github":  # it is written when GitHub obeys commands again
            error.message, error.hint = map(ci_marks.inert, (error.message, error.hint))
        raise
    except KeyboardInterrupt:
        status = EXIT_SIGNAL_BASE + signal.SIGINT
        raise
    finally:
        for text in () if container is None else container.remarks:
            reporting.remark(text)
        reporting.explain(explanations)
        reporting.end(request, container, tap, status, failure)
    return status


def _open_events(parsed: Parsed) -> EventStream | None:
    place = _place(parsed)
    return None if place is None else EventStream(Outlet(open_place(place)))


def _words(request: Request) -> str:
    return shlex.join(request.command) if request.command else "(a login shell)"


def _append_summary(text: str) -> None:
    path = os.environ.get(_SUMMARY)
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        note(f"cannot write {_SUMMARY} {path}: {error.strerror}")
