"""``xbuild diff``: what a container changed whose changes are kept apart (``run --persist``)."""

from __future__ import annotations

import json
import os

import click

from xbuild.cli.output import visible
from xbuild.plan.layers import UPPER
from xbuild.record import HostPath
from xbuild.sandbox.as_root import as_root_of
from xbuild.sandbox.fold import tree_of
from xbuild.sandbox.layer import list_changes
from xbuild.sandbox.mapping import outer_map_of

SCHEMA = "xbuild.diff/1"
_LETTERS = {"added": "A", "changed": "C", "deleted": "D"}


@click.command("diff")
@click.argument("directory", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(directory: str, as_json: bool) -> None:
    """List what is changed in DIRECTORY, which xbuild run --persist made.

    One path on each line, after A for added, C for changed, D for deleted, as docker diff has it.
    """
    place = HostPath(os.path.realpath(directory))
    tree = tree_of(place)

    def collect() -> str:
        found = list_changes(tree, f"{place}/{UPPER}")
        return json.dumps([{"kind": each.kind, "path": each.path} for each in found])

    changes: list[dict[str, str]] = json.loads(as_root_of(outer_map_of(tree), collect))
    if as_json:
        document = {"schema": SCHEMA, "tree": tree, "directory": place, "changes": changes}
        click.echo(json.dumps(document, indent=2))
        return
    for change in changes:
        click.echo(visible(f"{_LETTERS[change['kind']]} {change['path']}"))
