"""``xbuild ps``: the containers that are running."""

from __future__ import annotations

import json
import shlex
import time
from typing import TYPE_CHECKING

import click

from xbuild.cli.ages import age_in_words
from xbuild.cli.output import visible
from xbuild.sandbox.listing import running

if TYPE_CHECKING:
    from xbuild.sandbox.listing import Running

SCHEMA = "xbuild.ps/1"
_COMMAND_WIDTH = 60


@click.command("ps")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (see docs/json.md).")
@click.option("--quiet", "-q", is_flag=True, help="Print the names alone.")
def command(as_json: bool, quiet: bool) -> None:
    """List your running containers."""
    found = running()
    if as_json:
        click.echo(json.dumps(_document(found), indent=2))
        return
    if quiet:
        click.echo("".join(f"{each.name}\n" for each in found), nl=False)
        return
    rows = [("NAME", "PID", "SINCE", "TREE", "COMMAND"), *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[4]]).rstrip())


def _row(container: Running) -> tuple[str, str, str, str, str]:
    words = visible(shlex.join(container.argv)) or "(held)"
    shown = words if len(words) <= _COMMAND_WIDTH else words[: _COMMAND_WIDTH - 1] + "…"
    since = age_in_words(time.time() - container.began)
    return (container.name, str(container.pid), since, visible(container.tree), shown)


def _document(found: tuple[Running, ...]) -> dict[str, object]:
    rows = [{key: _plain(getattr(c, key)) for key in c.__match_args__} for c in found]
    return {"schema": SCHEMA, "containers": rows}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
