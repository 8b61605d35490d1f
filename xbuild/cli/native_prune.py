"""``xbuild native prune``."""

from __future__ import annotations

import click

from xbuild.cli.sizes import size_in_words
from xbuild.native.sets import prune_cache


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> int:
    """Delete damaged sets, what killed processes left, and packages that were downloaded."""
    for removed in prune_cache(lambda text, _: click.echo(text, err=True)):
        click.echo(f"removed {removed.path}: {size_in_words(removed.size_bytes)}")
    return 0
