"""``xbuild image flash``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from xbuild.cli.interruption import Interrupted, signals_raised
from xbuild.cli.output import note, visible
from xbuild.cli.progress import ProgressLine
from xbuild.cli.sizes import size_in_words
from xbuild.errors import EXIT_SIGNAL_BASE, DeviceRefused, ImageError
from xbuild.image.flash import Flashed, Progress, Proposal, flash_image, propose_flash
from xbuild.record import HostPath

_PHASES = {
    "wipe": "wiping",
    "write": "writing",
    "verify": "verifying",
    "rewrite": "rewriting",
    "finish": "finishing",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image", type=click.Path(readable=False))
@click.argument("device", type=click.Path(readable=False))
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Write to a device that is not removable, too.")
@click.option("--no-verify", is_flag=True, help="Do not read back what was written.")
def command(image: str, device: str, yes: bool, force: bool, no_verify: bool) -> int:
    """Write IMAGE, which may be compressed, to DEVICE, and read it back.

    DEVICE is a whole disk such as /dev/sdX, or a regular file. All that is on it is lost. Only
    the blocks that IMAGE's block map (IMAGE.bmap) or its holes do not exempt are written.
    """
    proposal = propose_flash(HostPath(image), HostPath(device), force=force)
    for line in _in_words(proposal):
        click.echo(visible(line), err=True)
    if not yes and not _is_agreed(proposal):
        return 1
    bar = ProgressLine()
    try:
        with signals_raised(), bar:
            done = flash_image(proposal, verify=not no_verify, report=lambda p: _show(bar, p))
    except Interrupted as stop:
        _say_interrupted(proposal, has_begun=bool(bar.phase))
        return EXIT_SIGNAL_BASE + stop.number
    except ImageError as error:
        if bar.phase and "bootable" not in error.hint:
            state = f"{device} is not bootable now, and its old content is lost"
            raise type(error)(
                error.message, "\n".join(filter(None, (error.hint, state)))
            ) from error
        raise
    _report(done, device)
    return 0


def _say_interrupted(proposal: Proposal, *, has_begun: bool) -> None:
    image, device = proposal.image, proposal.device.path
    if not has_begun:
        note(f"interrupted: nothing was written to {device}")
        return
    note(f"interrupted: {device} is not bootable now, and its old content is lost")
    note(f"to write it, run the same again: xbuild image flash {image} {device}")


def _in_words(proposal: Proposal) -> Iterator[str]:
    device = proposal.device
    name = " ".join(filter(None, (device.model, device.serial))) or "unknown model"
    reached = f", {device.transport}" if device.transport else ""
    yield f"{device.path}: {name}, {size_in_words(device.size)}{reached}"
    for line in proposal.content or ("nothing known",):
        yield f"  on it now: {line}"
    size = size_in_words(proposal.size) if proposal.size is not None else "size known at the end"
    mapped = f", {size_in_words(proposal.mapped)} to write" if proposal.mapped is not None else ""
    yield f"{proposal.image}: {size}{mapped}"


def _is_agreed(proposal: Proposal) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise DeviceRefused("Nobody can be asked here, as this is no terminal", "--yes, if sure")
    return click.confirm(f"Write to {proposal.device.path} and lose what is on it?", err=True)


def _show(bar: ProgressLine, progress: Progress) -> None:
    bar.show(_PHASES[progress.phase], progress.done, progress.total)


def _report(done: Flashed, device: str) -> None:
    for extent in done.rewritten:
        note(f"bytes {extent.offset}-{extent.end - 1} had to be written twice")
    checked = "verified" if done.verified else "not verified"
    click.echo(f"{device}: {size_in_words(done.written)} written, {checked}")
