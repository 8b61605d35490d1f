"""``xbuild who``: what holds a tree or an image, and what to do about each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from xbuild.cli.output import visible
from xbuild.record import HostPath

if TYPE_CHECKING:
    from xbuild.image.users import Uses

SCHEMA = "xbuild.who/1"


@click.command("who")
@click.argument("path", type=click.Path(readable=False))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(path: str, as_json: bool) -> None:
    """Show what holds PATH: a tree, an image or a block device.

    Processes, mounts in any mount namespace that you may read, loop devices, swap and locks, with
    a hint for each.
    """
    from xbuild.image.users import find_uses

    uses = find_uses(HostPath(path))
    if as_json:
        click.echo(json.dumps(_document(uses), indent=2))
        return
    print_uses(uses)


def print_uses(uses: Uses) -> None:
    """Print what was found, one line and one hint for each."""
    for line in lines_of(uses):
        click.echo(visible(line))
    if uses.unseen:
        click.echo(
            f"note: {uses.unseen} processes could not be looked into; root sees them all", err=True
        )


def lines_of(uses: Uses) -> list[str]:
    """Return what was found, one line and one hint for each."""
    if not uses.found:
        return [f"nothing holds {uses.path}"]
    pairs = ((f"{use.kind:<8} {use.text}", f"{'':<8} hint: {use.hint}") for use in uses.found)
    return [line for pair in pairs for line in pair]


def _document(uses: Uses) -> dict[str, object]:
    rows = [
        {"kind": u.kind, "text": u.text, "hint": u.hint, "pid": u.pid or None, "place": u.place}
        for u in uses.found
    ]
    return {"schema": SCHEMA, "path": uses.path, "uses": rows, "unseen": uses.unseen}
