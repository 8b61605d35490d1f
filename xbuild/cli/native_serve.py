"""``xbuild native serve``."""

from __future__ import annotations

import os
import shutil

import click

from xbuild.cli.output import note
from xbuild.errors import ToolsetMissing
from xbuild.native.distcc import PORT, known_toolset
from xbuild.native.distcc_server import Service, make_place, make_root, plan_service
from xbuild.native.prepare import prepare
from xbuild.record import HostPath
from xbuild.sandbox.container import Container
from xbuild.toolset.manifest import Toolset


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target", metavar="TREE|SET")
@click.option("--listen", default="127.0.0.1", metavar="ADDRESS", help="Listen here [127.0.0.1].")
@click.option("--port", type=click.IntRange(1, 65535), default=PORT, help=f"TCP port [{PORT}].")
@click.option(
    "--allow",
    multiple=True,
    metavar="ADDRESS[/BITS]",
    help="Who may compile here, repeatable [127.0.0.1].",
)
@click.option(
    "--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, help="At once [processors]."
)
def command(target: str, listen: str, port: int, allow: tuple[str, ...], jobs: int) -> int:
    """Compile for other machines: distccd with the native compilers of a set, in a container.

    The set is named by its digest's beginning (xbuild native list), or by a tree that it was
    prepared for. Machines that build with xbuild run --distcc use this server only if their set
    has the same compilers. distcc has no encryption and no passwords: --allow networks that you
    trust. Runs until it is interrupted.
    """
    toolset = _find(target)
    service = Service(listen, allow or ("127.0.0.1",), port, jobs)
    place = make_place()
    try:
        root = HostPath(f"{place}/root")
        make_root(toolset, root)
        note(f"serving {toolset.digest[:12]} on {listen}:{port}, {jobs} at once")
        return Container(plan_service(toolset, service, root)).run()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _find(target: str) -> Toolset:
    if os.path.isdir(target):
        return prepare(HostPath(os.path.realpath(target)), progress=_silent).toolset
    toolset = known_toolset(target)
    if toolset is None:
        raise ToolsetMissing(
            f"No set of native tools, or more than one, begins with {target!r}",
            "xbuild native list; or name a tree",
        )
    return toolset


def _silent(text: str, _fraction: float | None) -> None:
    note(text)
