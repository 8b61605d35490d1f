"""``xbuild commit``: fold changes that were kept apart back into their tree."""

from __future__ import annotations

import errno
import os

import click

from xbuild.cli.output import visible
from xbuild.errors import SetupFailed, TreeLocked
from xbuild.record import HostPath
from xbuild.sandbox.as_root import as_root_of
from xbuild.sandbox.fold import commit, tree_of
from xbuild.sandbox.listing import running
from xbuild.sandbox.mapping import outer_map_of

_MOUNTED = (
    "is it a mount point? The tree changes names with a new one beside it, on one file system: move"
    " it one directory down"
)
_HINTS = {
    errno.EBUSY: _MOUNTED,
    errno.EXDEV: _MOUNTED,
    errno.EACCES: "the new tree is made beside the old one: make the directory above it writable",
    errno.ENOSPC: "the new tree shares the old one's files, but needs directories of its own: df",
}


@click.command("commit")
@click.argument("directory", type=click.Path())
def command(directory: str) -> None:
    """Fold the changes in DIRECTORY, which xbuild run --persist made, into their tree.

    All of them or none, even if it is interrupted: then do it again. No container may use the tree.
    """
    place = HostPath(os.path.realpath(directory))
    tree = tree_of(place)
    users = [each.name for each in running() if each.tree == tree]
    if users:
        raise TreeLocked(f"{tree} is in use by {', '.join(users)}", "xbuild stop ends a container")

    def fold() -> str:
        commit(place)
        return ""

    try:
        as_root_of(outer_map_of(tree), fold)
    except OSError as error:
        raise SetupFailed(
            f"Cannot fold the changes into {tree}: {error.strerror} at {error.filename}",
            _HINTS.get(error.errno or 0, "the tree is whole: it can be tried again"),
        ) from error
    click.echo(visible(f"{tree} has the changes that were in {place}"))
