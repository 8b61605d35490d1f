"""``xbuild native prepare``."""

from __future__ import annotations

import os
import sys

import click

from xbuild.cli.output import note
from xbuild.native.prepare import prepare
from xbuild.record import HostPath
from xbuild.toolset.manifest import Toolset


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target", type=click.Path())
@click.option(
    "--provider",
    type=click.Path(),
    metavar="DIR",
    help="Take native programs from this root directory: a crossdev host, a cross chroot.",
)
@click.option("--again", is_flag=True, help="Make and prove the set anew, if it is there or not.")
def command(target: str, provider: str | None, again: bool) -> int:
    """Make the set of native tools for TARGET: programs of this host that do as its own do.

    The compilers' packages of TARGET's own distribution are fetched for this host, at TARGET's
    revisions; each program is compared with TARGET's by running both on the same input. Nothing is
    installed and TARGET is not changed. Afterwards: xbuild run --native TARGET.
    """
    done = prepare(
        HostPath(os.path.realpath(target)),
        provider=HostPath(os.path.realpath(provider)) if provider is not None else None,
        again=again,
        progress=_show,
    )
    click.echo(_in_words(done.toolset) + ("" if done.is_new else " (was there already)"))
    for reason, count in _refusals(done.toolset).items():
        note(f"{count} stay emulated: {reason}")
    return 0


def _show(text: str, fraction: float | None) -> None:
    if fraction is None:
        print(text, file=sys.stderr)


def _in_words(toolset: Toolset) -> str:
    counts = {
        level: sum(tool.level == level for tool in toolset.tools)
        for level in ("exact", "fast", "none")
    }
    return (
        f"{toolset.digest[:12]}: {counts['exact']} tools proven identical, {counts['fast']} more"
        f" with --native=fast, {counts['none']} stay emulated"
    )


def _refusals(toolset: Toolset) -> dict[str, int]:
    """Count the tools that stay emulated by why, but for those that do in every set."""
    found: dict[str, int] = {}
    for tool in toolset.tools:
        if tool.level == "none" and tool.kind in ("compiler", "assembler", "linker", "binutils"):
            found[tool.reason] = found.get(tool.reason, 0) + 1
    return found
