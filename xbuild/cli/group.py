"""The ``xbuild`` command group: a table of commands, each imported when it is called.

A new command is one module with an attribute ``command`` and one row in ``COMMANDS``.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import click

from xbuild.cli.output import complain, note_warnings
from xbuild.errors import EXIT_SIGNAL_BASE, EXIT_USAGE

COMMANDS = {
    "run": ("xbuild.cli.run", "Run a command in a root filesystem or a disk image"),
    "start": ("xbuild.cli.start", "Start a container in the background"),
    "hold": ("xbuild.cli.hold", "Keep a container that commands join"),
    "exec": ("xbuild.cli.exec", "Run a command in a container that is running"),
    "ps": ("xbuild.cli.ps", "List the running containers"),
    "attach": ("xbuild.cli.attach", "Use the console of a container in the background"),
    "logs": ("xbuild.cli.logs", "Show what a container in the background wrote"),
    "stop": ("xbuild.cli.stop", "End a running container"),
    "wait": ("xbuild.cli.wait", "Wait for the end of a container"),
    "diff": ("xbuild.cli.diff", "List the changes that a directory keeps apart from its tree"),
    "commit": ("xbuild.cli.commit", "Fold the changes that diff lists into their tree"),
    "create": ("xbuild.cli.create", "Make a tree: from a distribution, an archive, a registry"),
    "pack": ("xbuild.cli.pack", "Pack a tree into an archive, the same bytes each time"),
    "inspect": ("xbuild.cli.inspect", "Say what a tree, an archive, a disk image or a program is"),
    "image": ("xbuild.cli.image", "Resize, pack, flash and release disk images"),
    "doctor": ("xbuild.cli.doctor", "Find out what this host can do, by doing it"),
    "setup": ("xbuild.cli.setup", "Get static qemu-user, several versions side by side"),
    "cache": ("xbuild.cli.cache", "Show and delete what xbuild keeps"),
    "ci": ("xbuild.cli.ci", "Share packages out over the jobs of a CI service"),
    "native": ("xbuild.cli.native", "Make and keep native tools for trees"),
    "binfmt": ("xbuild.cli.binfmt", "List, verify and change this host's binfmt_misc entries"),
    "who": ("xbuild.cli.who", "Show what holds a tree or an image"),
    "import-nspawn": ("xbuild.cli.import_nspawn", "Translate settings of systemd-nspawn"),
    "unit": ("xbuild.cli.unit", "Print what starts a container with the machine"),
    "profile": ("xbuild.cli.profile", "List and show profiles"),
    "completion": ("xbuild.cli.completion", "Make your shell complete xbuild's command lines"),
}

COMPLETION_VARIABLE = "_XBUILD_COMPLETE"


class LazyGroup(click.Group):
    """A group that knows its commands' names and short help without importing them.

    ``table`` has a command's module and short help by its name; ``attributes`` are click's.
    """

    def __init__(
        self,
        *,
        table: dict[str, tuple[str, str]],
        **attributes: Any,  # Any: click's own parameters
    ) -> None:
        super().__init__(**attributes)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command's module, or return None for a name that is not in the table."""
        if cmd_name not in self._table:
            return None
        module = self._table[cmd_name][0]
        command = import_module(module).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.command is no click command")
        return command

    def short_helps(self) -> list[tuple[str, str]]:
        """Return the names with their short help."""
        return [(name, text) for name, (_, text) in self._table.items()]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table's short help; click's own way would import every command."""
        with formatter.section("Commands"):
            formatter.write_dl(self.short_helps())


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    import platform

    from xbuild import __version__

    kernel = os.uname()
    click.echo(f"xbuild {__version__}")
    click.echo(f"Python {platform.python_version()}, {kernel.sysname} {kernel.release}")
    ctx.exit()


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of xbuild, Python and the kernel.",
)
def xbuild() -> None:
    """Make a foreign-architecture root filesystem usable on this machine."""


def invoke(arguments: list[str]) -> int:
    """Run the command that ``arguments`` name and return its exit status.

    Not click's own main(): that turns a broken pipe into status 1 and an interrupt into a message.
    """
    if COMPLETION_VARIABLE in os.environ:
        xbuild.main(arguments, prog_name="xbuild")  # exits after printing the completions
    if not arguments:
        context = xbuild.make_context("xbuild", [], resilient_parsing=True)
        click.echo(xbuild.get_help(context), err=True)
        return EXIT_USAGE
    note_warnings()
    try:
        with xbuild.make_context("xbuild", list(arguments)) as context:
            result = xbuild.invoke(context)
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code
    except click.Abort:
        return EXIT_SIGNAL_BASE + 2  # SIGINT at a prompt
    except click.ClickException as error:
        _report_usage(error)
        return error.exit_code
    return result if isinstance(result, int) else 0


def _report_usage(error: click.ClickException) -> None:
    # click 8.1 has no such class: there a group without arguments prints its help and succeeds.
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        click.echo(error.format_message(), err=True)
        return
    context = getattr(error, "ctx", None)
    path = context.command_path if isinstance(context, click.Context) else "xbuild"
    complain(error.format_message().rstrip("."), f"{path} --help")
