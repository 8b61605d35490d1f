"""``xbuild cache``: a table of subcommands, and what they share.

A new one is one module with an attribute ``command`` and one row in ``COMMANDS``.
"""

from __future__ import annotations

import datetime
import os

import click

from xbuild.cli.group import LazyGroup
from xbuild.source.holdings import KINDS, Holding

COMMANDS = {
    "list": ("xbuild.cli.cache_list", "Show what is in the cache"),
    "prune": ("xbuild.cli.cache_prune", "Delete what is in the cache and not in use"),
}

kind_option = click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([kind.name for kind in KINDS]),
    help="Only things of this kind; may be given again.",
)


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
def command() -> None:
    """Show and delete what xbuild keeps: downloads, trees, native tools, interpreters, ccache's."""


def plain(holding: Holding) -> dict[str, object]:
    """Return a thing in the cache as JSON has it."""
    used = datetime.datetime.fromtimestamp(holding.used_at, datetime.UTC)
    return {
        "kind": holding.kind,
        "name": holding.label,
        "path": os.fspath(holding.path),
        "size": holding.size_bytes,
        "used": used.isoformat(timespec="seconds"),
        "users": list(holding.users),
    }
