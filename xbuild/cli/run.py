"""``xbuild run``: build a request from the command line, plan, and run or print the plan."""

from __future__ import annotations

import os

from xbuild.cli.options import parse
from xbuild.cli.output import complain, note, visible
from xbuild.cli.settings import build_request
from xbuild.errors import EXIT_FAILED, UsageError
from xbuild.plan.make import plan_run
from xbuild.sandbox.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import click

    from xbuild.cli.options import Parsed
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Plan
    from xbuild.record import HostPath

    Decide: TypeAlias = Callable[[Request], Plan]
    Run: TypeAlias = Callable[[Container], int]
    Tell: TypeAlias = Callable[[Plan, int, bytes], None]

# 128 and the signals by which emulated programs, and qemu, crash: these speak without any output.
_TELLING = (128 + 4, 128 + 7, 128 + 8, 128 + 11)
# 128 and those by which somebody ends what runs: SIGHUP, INT, QUIT, KILL, PIPE and TERM.
WANTED = (128 + 1, 128 + 2, 128 + 3, 128 + 9, 128 + 13, 128 + 15)
_SHELLS = ("sh", "bash", "dash", "zsh", "ash", "ksh", "fish")

USAGE = "xbuild run [OPTIONS] TREE|IMAGE [--] [COMMAND...]"
_FRONTENDS = frozenset(("ccache", "distcc", "jobs_from"))  # options of cli.frontends


def main(arguments: list[str]) -> int:
    """Run the command line after ``xbuild run`` and return the exit status.

    Raises XbuildError subclasses; see ``xbuild.cli.main`` for what becomes of them.
    """
    parsed = parse(arguments)
    if "help" in parsed.flags:
        from xbuild.cli.usage import print_help

        print_help()
        return 0
    if not parsed.target:
        raise UsageError("No tree was named", f"{USAGE}; xbuild run --help")
    request, decide = asked_for(parsed)
    if "cache_key" in parsed.flags:
        from xbuild.cli.cache_key import key_of  # off the start path

        print(key_of(request))
        return 0
    is_reported = _is_reported(parsed)
    if is_reported:
        from xbuild.cli.reported import with_output_seen  # off the start path

        request = with_output_seen(request, parsed)
    elif parsed.flags & {"explain", "retry"}:
        from xbuild.plan.piping import with_pipes  # off the start path

        request = with_pipes(request)
    if "dry_run" in parsed.flags:
        return print_plan(request, parsed)

    run = _run_certified if "certify" in parsed.flags else Container.run
    if "retry" in parsed.flags:
        from xbuild.cli.retry import climb  # off the start path

        return climb(request, parsed, decide, run)
    return run_once(request, parsed, decide, run)


def asked_for(parsed: Parsed) -> tuple[Request, Decide]:
    """Return what a command line asks for, and what makes a plan of that or of one like it.

    Writes notes. Raises XbuildError subclasses.
    """
    request = build_request(parsed)
    for text in parsed.notes:
        note(text)
    has_frontends = parsed.values.keys() & _FRONTENDS
    if has_frontends:
        from xbuild.cli.frontends import (  # off the start path
            check_frontends,
            frontends_of,
            with_frontends,
        )

        frontends = frontends_of(parsed)
        request, notes = with_frontends(request, frontends)
        for text in notes:
            note(text)

    def decide(request: Request) -> Plan:
        plan = plan_request(request, remember=True)
        if has_frontends:
            check_frontends(plan, frontends)
        for text in plan.notes:
            note(text)
        return plan

    return request, decide


def tell_why(plan: Plan, status: int, output: bytes) -> None:
    """Write what is known of a failure."""
    from xbuild.cli.explained import say  # off the start path

    say(plan, status, output)


def run_once(
    request: Request, parsed: Parsed, decide: Decide, run: Run, tell: Tell = tell_why
) -> int:
    """Plan by ``decide``, have ``run`` run it, and ``tell`` of a failure, or as asked.

    Raises XbuildError subclasses.
    """
    if _is_reported(parsed):
        from xbuild.cli.reported import run_reported  # off the start path

        return run_reported(request, parsed, decide, run)
    plan = decide(request)
    container = _container(plan)
    status = run(container)
    for text in container.remarks:
        note(text)
    if status and (
        may_lack_processor(plan, status)
        or is_telling(request.command, status, container.last_output)
    ):
        tell(plan, status, container.last_output)
    return status


def may_lack_processor(plan: Plan, status: int) -> bool:
    """Tell whether it may have been qemu that failed, since a processor was asked for."""
    return status == 1 and any(name == "QEMU_CPU" for name, _ in plan.command.environment)


def is_telling(command: tuple[str, ...], status: int, output: bytes) -> bool:
    """Tell whether there is something to explain a failure by."""
    return bool(output or status in _TELLING) and may_be_explained(command, status)


def may_be_explained(command: tuple[str, ...], status: int) -> bool:
    """Tell whether a command failed by itself: nobody ended it, and it is no shell to work in."""
    is_shell = len(command) == 1 and os.path.basename(command[0]) in _SHELLS
    return bool(command) and not is_shell and status != 0 and status not in WANTED


def _is_reported(parsed: Parsed) -> bool:
    is_stream = parsed.one("events") is not None or parsed.flags & {"json", "dry_run"} == {"json"}
    return is_stream or (parsed.one("ci") or "off") != "off"


def plan_request(request: Request, *, remember: bool) -> Plan:
    """Decide, for a tree or an image. Raises XbuildError subclasses."""
    if not os.path.isdir(request.target):
        from xbuild.image.recognise import is_image  # off the start path

        if is_image(request.target):
            from xbuild.cli.output import note_warnings
            from xbuild.cli.unpacking import shown_unpacking
            from xbuild.image.run import plan_image_run

            note_warnings()
            with shown_unpacking(f"unpacking {request.target}") as progress:
                return plan_image_run(request, remember=remember, progress=progress)
    if request.partition is not None or request.subvolume is not None or request.fsck:
        raise UsageError(
            "--partition, --subvolume and --fsck are for images", f"{request.target} is none"
        )
    return plan_run(request, remember=remember)


def print_plan(request: Request, parsed: Parsed) -> int:
    """Print what would be done, and which settings made it so."""
    from xbuild.cli.merge import settings_said
    from xbuild.plan.explain import explain, to_json

    plan = plan_request(request, remember=False)
    said = tuple((each.key, each.value, each.origin) for each in settings_said(parsed))
    if "json" in parsed.flags:
        print(to_json(plan, said))
    else:
        # A tree may name its directories as it likes, for a terminal to obey.
        print("\n".join(visible(line) for line in explain(plan, said).split("\n")))
    return 0


def _container(plan: Plan) -> Container:
    if not plan.command.piped:
        return Container(plan)
    from xbuild.sandbox.tap import Tap  # off the start path
    from xbuild.sandbox.tapped import TappedContainer

    return TappedContainer(plan, Tap())


def _run_certified(container: Container) -> int:
    from xbuild.sandbox.certificate import certify, witness

    before = witness(container.target)
    status = EXIT_FAILED
    try:
        status = container.run()
    finally:
        certificate = certify(before, container.target)
        note(certificate.text) if certificate.is_clean else complain(certificate.text)
        if not os.path.isdir(container.target):
            _tell_who_holds(container.target)
    # A success that left something behind is none.
    return status if certificate.is_clean or status else EXIT_FAILED


def _tell_who_holds(image: HostPath) -> None:
    from xbuild.cli.who import lines_of
    from xbuild.image.users import find_uses

    for line in lines_of(find_uses(image)):
        note(line)


def __getattr__(name: str) -> click.Command:
    """Build the click command when something asks for it: help, completion."""
    if name == "command":
        from xbuild.cli.usage import build_command

        return build_command()
    raise AttributeError(name)
