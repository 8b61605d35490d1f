"""``xbuild cache list``."""

from __future__ import annotations

import json
import time

import click

from xbuild.cli.ages import age_in_words
from xbuild.cli.cache import kind_option, plain
from xbuild.cli.output import visible
from xbuild.cli.sizes import size_in_words
from xbuild.source.cache import cache_directory
from xbuild.source.holdings import Holding, find_holdings

SCHEMA = "xbuild.cache/1"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@kind_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON (see docs/json.md).")
def command(kinds: tuple[str, ...], as_json: bool) -> None:
    """Show what is in the cache, the longest unused first: kind, size, last use, name.

    A star marks what is in use.
    """
    cache = cache_directory()
    found = find_holdings(cache, kinds)
    total = sum(holding.size_bytes for holding in found)
    if as_json:
        rows = [plain(holding) for holding in found]
        document = {"schema": SCHEMA, "directory": cache, "holdings": rows, "size": total}
        click.echo(json.dumps(document, indent=2))
        return
    now = time.time()
    for holding in found:
        click.echo(_row(holding, now))
    click.echo(visible(f"{size_in_words(total)} in {cache}"))


def _row(holding: Holding, now: float) -> str:
    age, mark = age_in_words(now - holding.used_at), "*" if holding.users else " "
    size = size_in_words(holding.size_bytes)
    return visible(f"{holding.kind:<12} {size:>11} {age:>5} {mark} {holding.label}")
