"""``xbuild ci``: what a CI service needs before there is a run. See also ``xbuild run --ci``."""

from __future__ import annotations

import click

from xbuild.cli.group import LazyGroup

COMMANDS = {
    "matrix": ("xbuild.cli.ci_matrix", "Print jobs that share packages out, for a CI service"),
}


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
def command() -> None:
    """Help a CI service: see docs/ci.md."""
