"""``xbuild native list``."""

from __future__ import annotations

import json

import click

from xbuild.cli.output import complain, note
from xbuild.cli.sizes import size_in_words
from xbuild.errors import ToolsetDamaged
from xbuild.source.cache import size_of
from xbuild.toolset.integrity import check_toolset
from xbuild.toolset.manifest import Tool, Toolset
from xbuild.toolset.match import list_toolsets

SCHEMA = "xbuild.native/1"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Show every tool with its verdict.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (see docs/json.md).")
def command(verbose: bool, as_json: bool) -> int:
    """List the sets of native tools, each checked for damage, with what was proven of them."""
    sets, unreadable = list_toolsets()
    states = [(toolset, _damage(toolset)) for toolset in sets]
    if as_json:
        listed = [_plain(toolset, damage) for toolset, damage in states]
        broken = [error.message for error in unreadable]
        click.echo(json.dumps({"schema": SCHEMA, "sets": listed, "unreadable": broken}, indent=2))
        return 0
    for toolset, damage in states:
        _print(toolset, damage, verbose)
    for error in unreadable:
        complain(error.message, error.hint)
    if not sets and not unreadable:
        note("there are no sets of native tools yet: xbuild native prepare TARGET")
    return 0


def _damage(toolset: Toolset) -> str:
    try:
        check_toolset(toolset, remember=True)
    except ToolsetDamaged as error:
        return error.message
    return ""


def _print(toolset: Toolset, damage: str, verbose: bool) -> None:
    size = size_in_words(size_of(toolset.directory))
    click.echo(f"{toolset.digest[:12]}  {toolset.architecture}  {toolset.provider}, {size}")
    if damage:
        click.echo(f"  DAMAGED: {damage}")
    for compiler in toolset.compilers:
        click.echo(f"  {compiler.path}  {compiler.revision}, native {compiler.provider}")
    for level, words in (
        ("exact", "proven identical"),
        ("fast", "with --native=fast"),
        ("none", "stay emulated"),
    ):
        tools = [tool for tool in toolset.tools if tool.level == level]
        click.echo(f"  {len(tools)} {words}" + (":" if tools and verbose else ""))
        if verbose:
            for tool in tools:
                click.echo(f"    {_row(tool)}")


def _row(tool: Tool) -> str:
    return f"{tool.path}  {tool.verdict}" + (f": {tool.reason}" if tool.reason else "")


def _plain(toolset: Toolset, damage: str) -> dict[str, object]:
    return {
        "digest": toolset.digest,
        "directory": toolset.directory,
        "architecture": toolset.architecture,
        "machine": toolset.machine,
        "provider": toolset.provider,
        "corpus": toolset.corpus,
        "damage": damage or None,
        "size": size_of(toolset.directory),
        "compilers": [
            {
                "path": compiler.path,
                "revision": compiler.revision,
                "provider": compiler.provider,
                "configuration": compiler.configuration,
            }
            for compiler in toolset.compilers
        ],
        "tools": [
            {
                "path": tool.path,
                "kind": tool.kind,
                "level": tool.level,
                "verdict": tool.verdict,
                "reason": tool.reason or None,
            }
            for tool in toolset.tools
        ],
    }
