"""``xbuild run`` as a click command, for help and completion; it is parsed by ``options``."""

from __future__ import annotations

import click

from xbuild.cli.options import OPTIONS

EPILOG = """\
TREE is a directory with a root filesystem, or a disk image that has one. Without COMMAND a login
shell starts. The exit status is the command's own, 128+N after signal N, 125 when xbuild failed,
126 when the command cannot be executed, 127 when it is not there, and 2 for wrong usage.
"""


def build_command() -> click.Command:
    """Return the command with one click option for each row of the table."""
    parameters: list[click.Parameter] = []
    for option in OPTIONS:
        if option.key == "help":
            continue
        if option.takes == "nothing":
            parameters.append(click.Option(list(option.names), is_flag=True, help=option.help))
            continue
        kind: click.ParamType = click.STRING
        if option.choices:
            kind = click.Choice(option.choices)
        elif option.metavar in ("PATH", "FILE") and option.key != "subvolume":
            kind = click.Path()
        parameters.append(
            click.Option(
                list(option.names),
                type=kind,
                multiple=option.takes == "many",
                metavar=option.metavar,
                help=option.help,
            )
        )
    parameters.append(click.Argument(["tree"], type=click.Path(), metavar="TREE"))
    parameters.append(click.Argument(["command"], nargs=-1, metavar="[--] [COMMAND...]"))
    return click.Command(
        "run",
        params=parameters,
        help="Run COMMAND in the root filesystem TREE, whatever its architecture.",
        epilog=EPILOG,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def print_help() -> None:
    """Print the help text of ``xbuild run``."""
    context = click.Context(build_command(), info_name="xbuild run")
    click.echo(context.get_help())
