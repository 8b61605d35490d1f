"""Completion of running containers' names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbuild.sandbox.listing import running

if TYPE_CHECKING:
    import click


def complete_names(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the names that begin with what was typed."""
    return [each.name for each in running() if each.name.startswith(incomplete)]
