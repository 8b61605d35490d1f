"""``xbuild inspect``: what a tree, archive, program or image is, and how this host runs it."""

from __future__ import annotations

import json

import click

from xbuild.cli.output import note
from xbuild.errors import UsageError
from xbuild.image.recognise import is_image
from xbuild.record import HostPath


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target", type=click.Path(readable=False))
@click.option("--json", "as_json", is_flag=True, help="Print JSON (see docs/json.md).")
@click.option("--full", is_flag=True, help="Count every program, not a sample.")
@click.option("--partition", metavar="N|LABEL", help="Where the root of an image is.")
def command(target: str, as_json: bool, full: bool, partition: str | None) -> None:
    """Say what TARGET is and how this host runs it.

    TARGET is a directory with a root filesystem, a tar archive of one, a disk image (both plain or
    gz, bz2, xz, zst), or a program.
    """
    path = HostPath(target)
    if is_image(path):
        from xbuild.cli import image_inspection

        image = image_inspection.inspect_image(path, partition=partition, full=full)
        document, text = image_inspection.as_document(image), image_inspection.as_text(image)
    elif partition is not None:
        raise UsageError("--partition is for images", f"{target} is none")
    else:
        from xbuild.cli.inspecting import inspect_target
        from xbuild.cli.inspection import as_document, as_text

        inspection = inspect_target(path, full=full)
        document, text = as_document(inspection), as_text(inspection)
        if full and not inspection.survey.complete:
            note("not all of it could be read: what was not is not counted")
    click.echo(json.dumps(document, indent=2) if as_json else text)
