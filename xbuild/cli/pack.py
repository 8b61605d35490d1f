"""``xbuild pack``: a tree as a tar archive."""

from __future__ import annotations

import os

import click

from xbuild.cli.interruption import Interrupted, signals_raised, tell_interrupted
from xbuild.cli.output import note, visible
from xbuild.cli.places import on_host
from xbuild.cli.sizes import size_in_words
from xbuild.cli.stages import Stages
from xbuild.errors import UsageError
from xbuild.record import HostPath
from xbuild.sandbox.mapping import identities_of
from xbuild.source.kinds import is_archive_name
from xbuild.source.pack import compression_for, pack_tree
from xbuild.source.place import place_beside, settle


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("tree", type=click.Path(readable=False))
@click.argument("output", type=click.Path(readable=False))
def command(tree: str, output: str) -> int:
    """Pack TREE into the tar archive OUTPUT, compressed by its name: .tar.zst, .tar.xz, .tar.gz.

    Owners are as a container of TREE sees them. The same TREE gives the same bytes; times of its
    files are kept, or not later than SOURCE_DATE_EPOCH where the environment has that.
    """
    if not is_archive_name(output):
        raise UsageError(f"{output} is no name of an archive", "such as tree.tar.zst")
    source = HostPath(os.path.realpath(on_host(tree)))
    target = HostPath(os.path.realpath(on_host(output)))
    identities = identities_of(source)
    try:
        with signals_raised(), place_beside(target, None) as beside, Stages() as stages:
            stages.show(f"packing {os.path.basename(target)}", None)
            made = HostPath(f"{beside}/archive")
            notes = pack_tree(source, made, compression_for(output), identities, name=target)
            settle(made, target)
    except Interrupted as stop:
        return tell_interrupted(target, stop)
    for text in notes:
        note(text)
    click.echo(visible(f"{target}: {size_in_words(os.path.getsize(target))}"))
    return 0
