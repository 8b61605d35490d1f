"""``xbuild cache prune``."""

from __future__ import annotations

import json
import time

import click

from xbuild.cli.cache import kind_option, plain
from xbuild.cli.output import note, visible
from xbuild.cli.settings import read_seconds
from xbuild.cli.sizes import SizeType, size_in_words
from xbuild.errors import UsageError
from xbuild.record import replace
from xbuild.source.cache import cache_directory, locked
from xbuild.source.holdings import OTHER, find_holdings
from xbuild.source.prune import Choice, Rule, choose, delete

SCHEMA = "xbuild.cache-prune/1"
_USUAL_AGE = "30d"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@kind_option
@click.option(
    "--older-than",
    metavar="AGE",
    help=f"Only what was not used for so long, as 12h or 7d [{_USUAL_AGE}].",
)
@click.option(
    "--keep",
    type=SizeType(),
    metavar="SIZE",
    help="Of any age, the longest unused first, until no more than SIZE is left.",
)
@click.option("--all", "is_all", is_flag=True, help="Of any age.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (see docs/json.md).")
def command(
    kinds: tuple[str, ...],
    older_than: str | None,
    keep: int | None,
    is_all: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Delete what is in the cache, was not used for 30 days, and is not in use.

    What killed processes left goes whatever its age. All of it is fetched or made again when it is
    needed; only ccache's take time to fill.
    """
    rule = replace(_rule(older_than, keep, is_all), takes_other=OTHER in kinds)
    cache = cache_directory()
    with locked(cache, lambda text, _: note(text)):  # two at once would be in each other's way
        choice = choose(find_holdings(cache, kinds), rule, time.time())
        done = Choice(choice.going, ()) if dry_run else delete(choice.going, cache)
    outcome = Choice(done.going, choice.spared + done.spared)
    if as_json:
        click.echo(json.dumps(_document(outcome, dry_run), indent=2))
    else:
        _print(outcome, "would remove" if dry_run else "removed")
    return 0


def _rule(older_than: str | None, keep: int | None, is_all: bool) -> Rule:
    if is_all and (older_than is not None or keep is not None):
        raise UsageError("--all is not limited by --older-than or --keep", "leave it out")
    age = older_than or ("0" if is_all or keep is not None else _USUAL_AGE)
    return Rule(0.0 if age == "0" else read_seconds(age, "older_than"), keep)


def _print(outcome: Choice, verb: str) -> None:
    for holding in outcome.going:
        size = size_in_words(holding.size_bytes)
        click.echo(visible(f"{verb} {holding.kind}: {holding.label} ({size})"))
    for spared in outcome.spared:
        note(f"kept {spared.holding.label}: {spared.why}")
    total = sum(holding.size_bytes for holding in outcome.going)
    click.echo(f"{verb} {len(outcome.going)}: {size_in_words(total)}")


def _document(outcome: Choice, dry_run: bool) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "dry_run": dry_run,
        "removed": [plain(holding) for holding in outcome.going],
        "spared": [{**plain(spared.holding), "why": spared.why} for spared in outcome.spared],
        "size": sum(holding.size_bytes for holding in outcome.going),
    }
