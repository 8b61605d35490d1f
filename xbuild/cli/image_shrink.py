"""``xbuild image shrink``."""

from __future__ import annotations

import click

from xbuild.cli.image_grow import resized_in_words
from xbuild.cli.sizes import SizeType
from xbuild.image.resize import shrink_image
from xbuild.record import HostPath


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image", type=click.Path(readable=False))
@click.argument("size", metavar="[SIZE]", required=False, type=SizeType())
@click.option("--minimum", is_flag=True, help="As small as its files allow [without SIZE].")
def command(image: str, size: int | None, minimum: bool) -> int:
    """Shrink IMAGE to SIZE: the file system, its partition and the file.

    Only the last partition can shrink, and only ext2, ext3 and ext4. All identifiers stay. An
    interruption leaves the image as it was. At the minimum, its file system is practically full.
    """
    if minimum and size is not None:
        raise click.UsageError("Give SIZE or --minimum.")
    click.echo(resized_in_words(shrink_image(HostPath(image), size=size)))
    return 0
