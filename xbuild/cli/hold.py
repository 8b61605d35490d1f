"""``xbuild hold``: a prepared environment that commands join."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbuild.cli.options import parse
from xbuild.cli.start import START_OPTIONS, hold
from xbuild.cli.usage import build_command_of, print_help_of

if TYPE_CHECKING:
    import click

SUMMARY = "Keep one container on TREE, which commands join by xbuild exec."
EPILOG = "It lives until xbuild stop ends it. The name is printed."


def main(arguments: list[str]) -> int:
    """Run the command line after ``xbuild hold``. Raises XbuildError subclasses."""
    parsed = parse(arguments, START_OPTIONS)
    if "help" in parsed.flags:
        print_help_of(build_command())
        return 0
    return hold(parsed)


def build_command() -> click.Command:
    """Return the click command for help and completion."""
    return build_command_of("hold", START_OPTIONS, "TREE|IMAGE", SUMMARY, EPILOG)


def __getattr__(name: str) -> click.Command:
    """Build the click command when something asks for it: help, completion."""
    if name == "command":
        return build_command()
    raise AttributeError(name)
