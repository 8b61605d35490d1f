"""``xbuild image``: a table of subcommands, each imported when it is called.

A new one is one module with an attribute ``command`` and one row in ``COMMANDS``.
"""

from __future__ import annotations

import click

from xbuild.cli.group import LazyGroup

COMMANDS = {
    "grow": ("xbuild.cli.image_grow", "Grow file, last partition and file system"),
    "shrink": ("xbuild.cli.image_shrink", "Shrink file system, last partition and file"),
    "pack": ("xbuild.cli.image_pack", "Leave out what is unused, map blocks, compress"),
    "release": ("xbuild.cli.image_release", "Detach what another program left of an image"),
    "flash": ("xbuild.cli.image_flash", "Write an image to a card, and read it back"),
}


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
def command() -> None:
    """Resize, pack, flash and release disk images."""
