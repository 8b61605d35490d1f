"""``xbuild run`` and its like as click commands, for help and completion only.

Their command lines are parsed by ``options``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xbuild.cli.options import OPTIONS, Option

if TYPE_CHECKING:
    from collections.abc import Callable

    Complete = Callable[[click.Context, click.Parameter, str], list[str]]

EPILOG = """\
TREE is a directory with a root filesystem, IMAGE a disk image that has one. Without COMMAND a login
shell starts. The exit status is the command's own, 128+N after signal N, 125 when xbuild failed,
126 when the command cannot be executed, 127 when it is not there, and 2 for wrong usage.
"""


SUMMARY = "Run COMMAND in the root filesystem TREE, or in that of IMAGE, whatever its architecture."


def build_command() -> click.Command:
    """Return the command with one click option for each row of the table."""
    return build_command_of("run", OPTIONS, "TREE|IMAGE", SUMMARY, EPILOG)


def build_command_of(
    name: str,
    options: tuple[Option, ...],
    target: str,
    summary: str,
    epilog: str,
    *,
    complete: Complete | None = None,
) -> click.Command:
    """Return a command that is parsed by ``options``: for its help and completion.

    What it is about is completed as a path, unless by ``complete``.
    """
    parameters: list[click.Parameter] = []
    for option in options:
        if option.key == "help":
            continue
        if option.takes == "nothing":
            parameters.append(click.Option(list(option.names), is_flag=True, help=option.help))
            continue
        parameters.append(_valued(option))
    kind = click.Path() if complete is None else None
    parameters.append(click.Argument(["tree"], type=kind, metavar=target, shell_complete=complete))
    parameters.append(click.Argument(["command"], nargs=-1, metavar="[--] [COMMAND...]"))
    return click.Command(
        name,
        params=parameters,
        help=summary,
        epilog=epilog,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


class _ByEqualsSign(click.Option):
    """An option whose value may be left out, and else follows a =: ``--native[=fast]``."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return how the option is written, and what it is for."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        return record[0].replace(f" {self.metavar}", f"[={self.metavar}]"), record[1]


def _valued(option: Option) -> click.Option:
    """Return a click option whose values are completed as what they are."""
    names, multiple = list(option.names), option.takes == "many"
    choice = click.Choice(option.choices) if option.choices else None
    if option.implied:
        return _ByEqualsSign(
            names,
            type=choice,
            metavar=option.metavar,
            help=option.help,
            is_flag=False,
            flag_value=option.implied,
        )
    if choice is not None:
        return click.Option(names, type=choice, metavar=option.metavar, help=option.help)
    if option.metavar in ("PATH", "FILE"):
        path = click.Path()
        return click.Option(
            names, type=path, multiple=multiple, metavar=option.metavar, help=option.help
        )
    return click.Option(names, multiple=multiple, metavar=option.metavar, help=option.help)


def print_help() -> None:
    """Print the help text of ``xbuild run``."""
    print_help_of(build_command())


def print_help_of(command: click.Command) -> None:
    """Print the help text of a command of the program."""
    names = ["-h", "--help"]
    context = click.Context(command, info_name=f"xbuild {command.name}", help_option_names=names)
    click.echo(command.get_help(context))
