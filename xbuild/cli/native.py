"""``xbuild native``: a table of subcommands, each imported when it is called.

A new one is one module with an attribute ``command`` and one row in ``COMMANDS``.
"""

from __future__ import annotations

import click

from xbuild.cli.group import LazyGroup

COMMANDS = {
    "prepare": ("xbuild.cli.native_prepare", "Make the set of native tools for a tree"),
    "serve": ("xbuild.cli.native_serve", "Compile for other machines: distccd with a set"),
    "list": ("xbuild.cli.native_list", "Show the sets, their tools and verdicts"),
    "remove": ("xbuild.cli.native_remove", "Delete sets"),
    "prune": ("xbuild.cli.native_prune", "Delete damaged and unfinished sets, and downloads"),
}


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
def command() -> None:
    """Make and keep native tools for trees: see xbuild run --native."""
