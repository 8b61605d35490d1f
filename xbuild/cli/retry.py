"""``--retry``: a failed command again, each time with one thing changed, until one holds.

Each rung of the ladder changes one thing alone, so that the one that holds says what it was. They
run on the same tree, as the attempt before left it; with --ephemeral each begins with the tree as
it is. A failure that is a known limit which no other try overcomes ends the climb at once.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from xbuild.binary.arch import arch_named
from xbuild.cli.output import complain, note
from xbuild.cli.run import WANTED, run_once, tell_why
from xbuild.diagnosis.circumstances import failure_of
from xbuild.diagnosis.failure import explain
from xbuild.emulation.selection import interpreters_for
from xbuild.errors import TimedOut, UsageError
from xbuild.plan.steps import Plan, Register
from xbuild.record import Record, replace

if TYPE_CHECKING:
    from xbuild.cli.options import Parsed
    from xbuild.cli.run import Decide, Run, Tell
    from xbuild.plan.request import Request
    from xbuild.sandbox.container import Container

ADDR_NO_RANDOMIZE = 0x0040000  # linux/personality.h
_NOT_THE_COMMANDS = (125, 126, 127)


class Rung(Record):
    """One more attempt: ``changed`` in words, and ``keep`` how to have it so from the start."""

    changed: str
    keep: str
    request: Request
    change: Callable[[Plan], Plan]
    on_one_processor: bool = False


class _Attempt(Record):
    status: int
    plan: Plan | None
    output: bytes


class _Teller:
    """Tells of a failure, unless the attempt before failed by the same."""

    def __init__(self) -> None:
        self._told: tuple[str, ...] = ()

    def tell(self, plan: Plan, status: int, output: bytes) -> None:
        """Write what is known of it, if that is news."""
        found = tuple(each.limit.name for each in explain(failure_of(plan, status, output)))
        if found != self._told:
            tell_why(plan, status, output)
        self._told = found


def climb(request: Request, parsed: Parsed, decide: Decide, run: Run) -> int:
    """Run, and while that fails, climb; return the status of the last attempt. Raises XbuildError.

    A run that was out of time (--timeout) is not repeated, one that hung (--idle-timeout) is.
    """
    if parsed.one("events") is not None or "json" in parsed.flags:
        raise UsageError("--retry makes several runs of one, and --events tells of one", "not both")
    stdin = _position(0)
    tell = _Teller().tell
    first = _attempt(_same(request), parsed, decide, run, tell)
    last = first
    if not _is_worth_it(first):
        return first.status
    tried = []
    for rung in _ladder(request, first.plan):
        note(f"--retry: {rung.changed}, {_on_what(request)}")
        _rewind(stdin)
        last = _attempt(rung, parsed, decide, run, tell)
        if last.status == 0:
            keep = f"; to have it so from the start: {rung.keep}" if rung.keep else ""
            note(f"--retry: it held {rung.changed}{keep}")
            return 0
        if _was_ended(last):
            return last.status
        tried.append(rung.changed)
    note(f"--retry: it failed each time: {', '.join(tried)}")
    return last.status


def _same(request: Request) -> Rung:
    return Rung("with nothing changed", "", request, lambda plan: plan)


def _ladder(request: Request, plan: Plan | None) -> Iterator[Rung]:
    yield _same(request)
    if plan is None:
        return
    yield Rung(
        "without address space randomization", "setarch -R xbuild run …", request, _without_aslr
    )
    yield Rung(
        "on one processor",
        "taskset -c 0 xbuild run …",
        request,
        lambda plan: plan,
        on_one_processor=True,
    )
    register = next((step for step in plan.steps if isinstance(step, Register)), None)
    if register is None:
        if plan.host_entries:
            note("--retry: other versions of qemu take a registry of the container's own")
        return
    arch = arch_named(register.arch)
    present = interpreters_for(arch)
    used = next((p.version for p in present if p.path == register.host_interpreter), None)
    tried = {used}
    for each in present:
        if each.version not in tried:
            tried.add(each.version)
            yield Rung(
                f"by qemu {each.version}",
                f"--interpreter {shlex.quote(f'{arch.common_name}@{each.version}')}",
                replace(request, interpreter=each.path),
                lambda plan: plan,
            )


def _without_aslr(plan: Plan) -> Plan:
    command = plan.command
    persona = (command.personality or 0) | ADDR_NO_RANDOMIZE
    return replace(plan, steps=(*plan.steps[:-1], replace(command, personality=persona)))


def _attempt(rung: Rung, parsed: Parsed, decide: Decide, run: Run, tell: Tell) -> _Attempt:
    made: list[Plan] = []
    ran: list[Container] = []

    def decide_so(request: Request) -> Plan:
        made.append(rung.change(decide(request)))
        return made[-1]

    def run_so(container: Container) -> int:
        ran.append(container)
        return run(container)

    limits = _one_processor() if rung.on_one_processor else contextlib.nullcontext()
    try:
        with limits:
            status = run_once(rung.request, parsed, decide_so, run_so, tell)
    except TimedOut as error:
        if not error.is_idle:
            raise
        complain(error.message, error.hint)
        status = error.exit_status
    plan = made[-1] if made else None
    return _Attempt(status, plan, ran[-1].last_output if ran else b"")


def _is_worth_it(first: _Attempt) -> bool:
    """Tell whether another try may go well; say why not."""
    if first.status == 0 or first.status in _NOT_THE_COMMANDS or first.plan is None:
        return False
    if _was_ended(first):
        return False
    found = explain(failure_of(first.plan, first.status, first.output))
    if found and not any(each.limit.retry for each in found):
        note("--retry: not tried again, for this limit would be met again")
        return False
    return True


def _was_ended(attempt: _Attempt) -> bool:
    """Tell whether it did not end by itself; say so."""
    if attempt.status not in WANTED:
        return False
    note("--retry: not tried again, for it was ended from outside, or nobody reads it any more")
    return True


def _on_what(request: Request) -> str:
    if request.ephemeral:
        return "with the tree as it is"
    return "on the tree as the attempt before left it"


@contextlib.contextmanager
def _one_processor() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _position(fd: int) -> int | None:
    """Return where a file is read, None for what cannot be read twice."""
    try:
        return os.lseek(fd, 0, os.SEEK_CUR) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError:
        return None


def _rewind(position: int | None) -> None:
    if position is not None:
        os.lseek(0, position, os.SEEK_SET)
