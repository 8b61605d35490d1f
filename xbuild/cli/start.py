"""``xbuild start``: a container that nobody waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xbuild.cli.options import OPTIONS, parse
from xbuild.cli.output import note
from xbuild.cli.run import asked_for, is_telling, print_plan, tell_why
from xbuild.cli.usage import build_command_of, print_help_of
from xbuild.errors import UsageError
from xbuild.record import replace
from xbuild.sandbox.console import log_path
from xbuild.sandbox.detached import detach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xbuild.cli.options import Parsed
    from xbuild.cli.run import Decide
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Plan

EPILOG = """\
It ends when COMMAND does, or by xbuild stop. xbuild attach shows its console, xbuild logs what it
wrote, xbuild exec joins it. The name is printed.
"""
SUMMARY = "Start COMMAND in the root filesystem TREE, detached, with its output in a log."
NOT_DETACHED = ("certify", "console", "events", "ci", "cache_key", "retry")
_AS_WITHOUT = (("console", "auto"), ("ci", "off"))
START_OPTIONS = tuple(option for option in OPTIONS if option.key not in NOT_DETACHED)


def main(arguments: list[str]) -> int:
    """Run the command line after ``xbuild start``. Raises XbuildError subclasses."""
    parsed = parse(arguments, START_OPTIONS)
    if "help" in parsed.flags:
        print_help_of(build_command())
        return 0
    request, decide = _asked_for(parsed, "start")
    return start(parsed, _detached(request, terminal=(0, 1, 2)), decide)


def _asked_for(parsed: Parsed, command: str) -> tuple[Request, Decide]:
    if not parsed.target:
        raise UsageError("No tree was named", f"xbuild {command} --help")
    if parsed.flags & {"json", "dry_run"} == {"json"}:
        raise UsageError(
            f"--json goes with --dry-run: xbuild {command} tells of no events", "xbuild run does"
        )
    asked = asked_for(parsed)
    for text in _left_out(parsed, command):
        note(text)
    return asked


def _left_out(parsed: Parsed, command: str) -> Iterator[str]:
    """Yield what profiles ask for that is for a run which somebody waits for."""
    if not parsed.profiled:
        return
    from xbuild.cli.merge import settings_said  # loaded before, by the profile

    for said in settings_said(parsed):
        if said.key in NOT_DETACHED and (said.key, said.value) not in _AS_WITHOUT:
            setting = f"{said.key} = {said.value} of {said.origin}"
            yield f"{setting} is for xbuild run, and left out by xbuild {command}"


def _detached(request: Request, *, terminal: tuple[int, ...]) -> Request:
    return replace(request, detached=True, terminal=terminal, piped=())


def start(parsed: Parsed, request: Request, decide: Decide) -> int:
    """Start what was asked for and print its name, or print the plan."""
    if "dry_run" in parsed.flags:
        return print_plan(request, parsed)
    plan = decide(request)

    def tell(plan: Plan, status: int, output: bytes) -> None:
        if is_telling(request.command, status, output):
            tell_why(plan, status, output)

    name = detach(plan, tell)
    click.echo(name)
    if not request.held:
        note(f"its output is in {log_path(name)}")
    return 0


def hold(parsed: Parsed) -> int:
    """Start a container without a command. Raises XbuildError subclasses."""
    if parsed.command:
        raise UsageError("A container that is held has no command", "xbuild start has one")
    if "as_pid1" in parsed.flags:
        raise UsageError(
            "A container that is held has no command to be process 1",
            "xbuild start --as-pid1 TREE -- COMMAND",
        )
    if "explain" in parsed.flags:
        raise UsageError(
            "A container that is held has nothing to explain",
            "xbuild exec --explain NAME -- COMMAND",
        )
    request, decide = _asked_for(parsed, "hold")
    held = replace(_detached(request, terminal=()), held=True, command=())
    return start(parsed, held, decide)


def build_command() -> click.Command:
    """Return the click command for help and completion."""
    return build_command_of("start", START_OPTIONS, "TREE|IMAGE", SUMMARY, EPILOG)


def __getattr__(name: str) -> click.Command:
    """Build the click command when something asks for it: help, completion."""
    if name == "command":
        return build_command()
    raise AttributeError(name)
