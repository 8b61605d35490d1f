"""``xbuild image grow``."""

from __future__ import annotations

import click

from xbuild.cli.sizes import SizeType, size_in_words
from xbuild.image.resize import Resized, grow_image
from xbuild.record import HostPath


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image", type=click.Path(readable=False))
@click.argument("size", metavar="+SIZE|SIZE")
def command(image: str, size: str) -> int:
    """Grow IMAGE to SIZE, or by +SIZE: the file, its last partition and the file system in it.

    SIZE is in bytes, or as 512M, 8G, 32GB. Only the last partition can grow, and only ext2, ext3
    and ext4. All identifiers stay. An interruption leaves the image as it was.
    """
    is_relative = size.startswith("+")
    number = SizeType().convert(size.removeprefix("+"), None, None)
    done = grow_image(HostPath(image), size=number, is_relative=is_relative)
    click.echo(resized_in_words(done))
    return 0


def resized_in_words(done: Resized) -> str:
    """Say what the size of what is now."""
    what = f"partition {done.partition}" if done.partition else "file system"
    before, now = size_in_words(done.filesystem_before), size_in_words(done.filesystem)
    sizes = f"{size_in_words(done.size_before)} -> {size_in_words(done.size)}"
    return f"{done.path}: {sizes}; {what}: {before} -> {now}"
