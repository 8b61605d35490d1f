"""``xbuild image``: a table of subcommands, each imported when it is called.

A new one is one module with an attribute ``command`` and one row in ``COMMANDS``.
"""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS = {
    "grow": ("xbuild.cli.image_grow", "Grow file, last partition and file system"),
    "shrink": ("xbuild.cli.image_shrink", "Shrink file system, last partition and file"),
    "pack": ("xbuild.cli.image_pack", "Leave out what is unused, map blocks, compress"),
    "release": ("xbuild.cli.image_release", "Detach what another program left of an image"),
    "flash": ("xbuild.cli.image_flash", "Write an image to a card, and read it back"),
}


class _ImageGroup(click.Group):
    """Knows the subcommands' names and short help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name][0]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name][0]}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])


@click.group(cls=_ImageGroup, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Resize, pack and flash disk images."""
