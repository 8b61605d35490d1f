"""``xbuild import-nspawn``: settings of systemd-nspawn as settings of xbuild's."""

from __future__ import annotations

import json

import click

from xbuild.cli.nspawn import translate
from xbuild.cli.output import note, visible
from xbuild.errors import UsageError
from xbuild.pipes import with_patience
from xbuild.plan.computed import literal


@click.command("import-nspawn")
@click.argument("file", metavar="FILE.nspawn", type=click.Path())
def command(file: str) -> None:
    """Print the settings of FILE.nspawn as a profile; what cannot be translated is named.

    Put it beside the tree, as TREE.xbuild.toml, or among your profiles (docs/profiles.md).
    """
    try:
        with open(file, encoding="utf-8", opener=with_patience) as stream:
            text = stream.read()
    except OSError as error:
        raise UsageError(
            f"Cannot read {file}: {error.strerror}", "name a file as systemd.nspawn(5) has it"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"Cannot read {file}: it is no text in UTF-8",
            "name a file with settings as systemd.nspawn(5) has them",
        ) from error
    translation = translate(text)
    click.echo(f"# from {visible(file)}")
    for key, value in translation.settings:
        # A string of JSON is one of TOML.
        plain: object = value
        if isinstance(value, str):
            plain = literal(value)
        elif isinstance(value, tuple):
            plain = [literal(each) for each in value]
        click.echo(f"{key} = {json.dumps(plain)}")
    for number, what, why in translation.left_out:
        note(f"{file}:{number}: {what} is left out: {why}")
