"""``xbuild create``: a tree from where trees come from."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import click
from click.shell_completion import CompletionItem

from xbuild.cli.interruption import Interrupted, signals_raised, tell_interrupted
from xbuild.cli.output import note, visible
from xbuild.cli.places import on_host
from xbuild.cli.settings import read_seconds, settings_beside
from xbuild.cli.sizes import SizeType, size_in_words
from xbuild.cli.stages import Stages
from xbuild.errors import NotARootfs, SourceError, UsageError, XbuildError
from xbuild.image.build import LAYOUTS, Design, Layout, build_image, require_size
from xbuild.image.recognise import is_image
from xbuild.record import HostPath, Record, replace
from xbuild.sandbox.mapping import identities_of_new_tree
from xbuild.source.create import Made, Work, make_tree
from xbuild.source.kinds import (
    FORMS,
    VARIANTS,
    Minirootfs,
    Options,
    Source,
    Stage3,
    TarballFile,
    TarballUrl,
    is_archive_name,
    parse_source,
)
from xbuild.source.pack import compression_for, pack_tree
from xbuild.source.place import place_beside, require_free, settle
from xbuild.source.preview import preview
from xbuild.source.unpack import SIZE_LIMIT
from xbuild.tree.target import survey

Form = Literal["directory", "archive", "image"]
_IMAGE_ENDING = ".img"
_ROOT_OWNERS = "as they are there, and device nodes, too"
_OWNERS = {
    "nested": "as they are there, as far as the ids go that root has here; no device nodes",
    "subordinate": "as they are there, shifted into your subordinate ids; no device nodes",
    "single": "you alone, who have no subordinate ids (xbuild doctor); no device nodes",
}


class _Order(Record):
    """What is to be made of what; ``layout`` and ``size`` (None: what it needs) are an image's."""

    source: Source
    place: HostPath
    form: Form
    size_limit: int
    layout: Layout
    size: int | None


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"SOURCE is one of: {', '.join(FORMS)}.",
)
@click.argument("target", type=click.Path(readable=False))
@click.option(
    "--from",
    "origin",
    required=True,
    metavar="SOURCE",
    shell_complete=lambda *_: [CompletionItem("", type="file")],
    help="Where the tree comes from, see below.",
)
@click.option("--arch", metavar="ARCH", help="The architecture [this host's].")
@click.option("--sha256", metavar="DIGEST", help="Refuse an archive with another digest.")
@click.option(
    "--mirror",
    metavar="URL",
    help="Where to fetch from [that of this host, or the distribution's own].",
)
@click.option(
    "--keyring",
    type=click.Path(),
    metavar="FILE",
    help="The keys whose signatures count [the distribution's, where this host has them].",
)
@click.option("--include", metavar="PACKAGE,…", multiple=True, help="Packages to have as well.")
@click.option(
    "--variant",
    type=click.Choice(VARIANTS),
    help=f"How much of a distribution: see mmdebstrap(1) [{VARIANTS[0]}].",
)
@click.option(
    "--stall-timeout",
    metavar="TIME",
    help="Give up on a server that sends nothing for so long [30s].",
)
@click.option(
    "--size-limit",
    type=SizeType(),
    metavar="SIZE",
    default=str(SIZE_LIMIT),
    help=f"Stop an archive that unpacks to more [{SIZE_LIMIT >> 30}G].",
)
@click.option("--layout", type=click.Choice(LAYOUTS), help="Of an image: its partitions [gpt].")
@click.option("--size", type=SizeType(), metavar="SIZE", help="Of an image, as 8G [what it needs].")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def command(
    target: str,
    origin: str,
    size: int | None,
    layout: Layout | None,
    include: tuple[str, ...],
    stall_timeout: str | None,
    size_limit: int,
    dry_run: bool,
    **said: str | None,
) -> int:
    """Make TARGET a root filesystem: a directory, an archive (.tar.zst) or an image (.img).

    It is made beside its place, and appears whole or not at all. For root, owners and device nodes
    are as they should be; for others, files belong to them and to their subordinate ids, which
    xbuild run shows as the owners that they should have, and device nodes are left out.
    """
    stall_s = None if stall_timeout is None else read_seconds(stall_timeout, "stall_timeout")
    source = parse_source(origin, Options(stall_s=stall_s, include=include, **said))
    if not target:
        raise UsageError("TARGET has no name", "xbuild create --help")
    place = HostPath(os.path.realpath(on_host(target)))
    form = form_of(place, has_image_options=size is not None or layout is not None)
    order = _Order(source, place, form, size_limit, layout or LAYOUTS[0], size)
    require_size(order.layout, size)
    if dry_run:
        _show_plan(order)
        return 0
    try:
        with signals_raised():
            made = _make(order)
    except Interrupted as stop:
        return tell_interrupted(place, stop)
    _tell(place, made)
    return 0


def _show_plan(order: _Order) -> None:
    """Say what _make() is going to do. Raises what that raises before it does anything."""
    identities = identities_of_new_tree()
    require_free(order.place)
    directory = HostPath(os.path.dirname(order.place))
    lines = [*preview(order.source, directory, identities)]
    if isinstance(order.source, (TarballFile, TarballUrl, Stage3, Minirootfs)):
        lines.append(("limit", f"{size_in_words(order.size_limit)} unpacked, and the room there"))
    lines.append(("owners", _OWNERS.get(identities.kind, _ROOT_OWNERS)))
    lines.append(("make", f"{order.place}: {_form_in_words(order)}, whole or not at all"))
    for about, text in lines:
        click.echo(visible(f"{about:<9} {text}"))


def _form_in_words(order: _Order) -> str:
    if order.form != "image":
        return "an archive" if order.form == "archive" else "a directory"
    size = "what the tree needs and some more" if order.size is None else size_in_words(order.size)
    return f"an image with the layout {order.layout}, of {size}"


def _make(order: _Order) -> Made:
    identities = identities_of_new_tree()
    with place_beside(order.place, identities.outer) as beside:
        tree, name = HostPath(f"{beside}/tree"), os.path.basename(order.place)
        with Stages() as stages:
            made = make_tree(order.source, tree, Work(identities, order.size_limit, stages.show))
            result, notes = tree, made.notes
            if order.form == "archive":
                result = HostPath(f"{beside}/archive")
                stages.show(f"packing {name}", None)
                compression = compression_for(order.place)
                notes += pack_tree(tree, result, compression, identities, name=order.place)
            elif order.form == "image":
                result = HostPath(f"{beside}/image")
                stages.show(f"building {name}", None)
                design = Design(order.layout, order.size, _arch_of(tree))
                notes += build_image(tree, result, design, identities)
        settings = "" if order.form == "archive" else made.settings
        made = replace(made, notes=notes, settings=settings)
        with _settings_beside(order.place, made):
            settle(result, order.place)
    return made


def form_of(target: str, *, has_image_options: bool) -> Form:
    """Return what a target is to be, by its name and what was asked for. Raises UsageError."""
    if is_archive_name(target):
        if has_image_options:
            raise UsageError(f"{target} is an archive's name", "--size and --layout are for images")
        return "archive"
    return "image" if has_image_options or target.lower().endswith(_IMAGE_ENDING) else "directory"


def _arch_of(tree: HostPath) -> str:
    try:
        found = survey(tree).arch
    except XbuildError:
        return ""
    return found.name if found else ""


@contextmanager
def _settings_beside(target: HostPath, made: Made) -> Iterator[None]:
    """Have the settings of a tree there, whole, before it is; without it they do not stay."""
    if not made.settings:
        yield
        return
    path = settings_beside(target)
    try:
        with open(path, "x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(made.settings)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise SourceError(f"{path} exists already", "remove it first: it would apply") from error
    try:
        yield
    except BaseException:
        if not os.path.lexists(target):  # interrupted when it had its name, it is whole
            os.unlink(path)
        raise


def _tell(place: HostPath, made: Made) -> None:
    for text in made.notes:
        note(text)
    if is_image(place):
        click.echo(visible(f"{place}: image of {size_in_words(os.path.getsize(place))}"))
        name = shlex.quote(place)
        _tell_next(f"xbuild run {name}; or xbuild image flash {name} DEVICE")
        return
    try:
        found = survey(place)
    except NotARootfs as error:
        note(f"{error.message}; is the tree in a directory of the archive?")
        click.echo(visible(f"{place}: made"))
        return
    if made.settings:
        note(f"how the image says that it is to be run is in {settings_beside(place)}")
    distribution = f", {found.distribution.pretty_name}" if found.distribution else ""
    assert found.arch is not None  # a survey without one raises
    click.echo(visible(f"{place}: {found.arch.common_name}{distribution}"))
    if is_archive_name(place):
        _tell_next(f"xbuild create DIRECTORY --from {shlex.quote(place)}")
    else:
        _tell_next(f"xbuild run {shlex.quote(place)}")


def _tell_next(command: str) -> None:
    """Tell a person what to do with it; a script knows."""
    if sys.stderr is not None and sys.stderr.isatty():
        click.echo(visible(f"next: {command}"), err=True)
