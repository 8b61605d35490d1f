"""``xbuild native remove``."""

from __future__ import annotations

import click

from xbuild.cli.sizes import size_in_words
from xbuild.native.sets import remove_sets


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
def command(digests: tuple[str, ...]) -> int:
    """Delete sets of native tools, named by the beginning of their digests: xbuild native list."""
    for removed in remove_sets(digests, lambda text, _: click.echo(text, err=True)):
        click.echo(f"removed {removed.path}: {size_in_words(removed.size_bytes)}")
    return 0
