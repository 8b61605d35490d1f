"""``xbuild image pack``."""

from __future__ import annotations

import click

from xbuild.cli.output import note
from xbuild.cli.progress import ProgressLine
from xbuild.cli.sizes import size_in_words
from xbuild.image.pack import Compression, default_output, pack_image
from xbuild.record import HostPath


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image", type=click.Path(readable=False))
@click.option("-o", "--output", type=click.Path(readable=False), help="Where to [beside IMAGE].")
@click.option("--compress", type=click.Choice(["none", "xz", "zstd"]), default="none")
@click.option("--in-place", is_flag=True, help="Replace IMAGE itself, uncompressed.")
@click.option("-f", "--force", is_flag=True, help="Replace an output that is there already.")
def command(
    image: str, output: str | None, compress: Compression, in_place: bool, force: bool
) -> int:
    """Pack IMAGE to be handed on: without unused blocks, with a block map and SHA256SUMS.

    The same IMAGE gives the same bytes. IMAGE is only read, unless --in-place.
    """
    if in_place and (output is not None or compress != "none"):
        raise click.UsageError("--in-place goes with neither --output nor --compress.")
    place = HostPath(image) if in_place else HostPath(output or default_output(image, compress))
    with ProgressLine() as line:
        done = pack_image(
            HostPath(image),
            place,
            compression=compress,
            overwrite=force,
            report=lambda now, total: line.show("packing", now, total),
        )
    for text in done.notes:
        note(text)
    click.echo(
        f"{done.image}: {size_in_words(done.size)}, {size_in_words(done.mapped)} in use"
        + (f", packed to {size_in_words(done.packed_size)}" if compress != "none" else "")
    )
    click.echo(f"{done.block_map}: the block map")
    click.echo(f"{done.checksums}: the checksums of both")
    return 0
