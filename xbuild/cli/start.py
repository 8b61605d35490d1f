"""``xbuild start``: a container that nobody waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xbuild.cli.options import OPTIONS, parse
from xbuild.cli.output import note
from xbuild.cli.run import is_telling, plan_request, print_plan, tell_why
from xbuild.cli.settings import build_request
from xbuild.cli.usage import build_command_of, print_help_of
from xbuild.errors import UsageError
from xbuild.record import replace
from xbuild.sandbox.console import log_path
from xbuild.sandbox.detached import detach

if TYPE_CHECKING:
    from xbuild.cli.options import Parsed
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Plan

EPILOG = """\
It ends when COMMAND does, or by xbuild stop. xbuild attach shows its console, xbuild logs what it
wrote, xbuild exec joins it. The name is printed.
"""
SUMMARY = "Start COMMAND in the root filesystem TREE, detached, with its output in a log."
_NOT_DETACHED = ("certify", "console", "events", "ci", "cache_key")
START_OPTIONS = tuple(option for option in OPTIONS if option.key not in _NOT_DETACHED)


def main(arguments: list[str]) -> int:
    """Run the command line after ``xbuild start``. Raises XbuildError subclasses."""
    parsed = parse(arguments, START_OPTIONS)
    if "help" in parsed.flags:
        print_help_of(build_command())
        return 0
    return start(parsed, _detached(_request(parsed, "start"), terminal=(0, 1, 2)))


def _request(parsed: Parsed, command: str) -> Request:
    if not parsed.target:
        raise UsageError("No tree was named", f"xbuild {command} --help")
    request = build_request(parsed)
    for text in parsed.notes:
        note(text)
    return request


def _detached(request: Request, *, terminal: tuple[int, ...]) -> Request:
    return replace(request, detached=True, terminal=terminal, piped=())


def start(parsed: Parsed, request: Request) -> int:
    """Start what was asked for and print its name, or print the plan."""
    if "dry_run" in parsed.flags:
        return print_plan(request, parsed)
    plan = plan_request(request, remember=True)
    for text in plan.notes:
        note(text)

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
    request = _request(parsed, "hold")
    return start(parsed, replace(_detached(request, terminal=()), held=True, command=()))


def build_command() -> click.Command:
    """Return the click command for help and completion."""
    return build_command_of("start", START_OPTIONS, "TREE", SUMMARY, EPILOG)


def __getattr__(name: str) -> click.Command:
    """Build the click command when something asks for it: help, completion."""
    if name == "command":
        return build_command()
    raise AttributeError(name)
