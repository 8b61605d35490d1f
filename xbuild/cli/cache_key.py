"""``xbuild run --cache-key``: what a CI service may keep for the next job, and what it may not."""

from __future__ import annotations

import os

from xbuild.cli.unpacking import shown_unpacking
from xbuild.emulation.interpreters import verified_interpreter
from xbuild.errors import InterpreterError
from xbuild.image.lock import lock_image
from xbuild.image.recognise import is_image
from xbuild.image.source import provide_source
from xbuild.image.survey import open_survey, require_root
from xbuild.plan.cache_key import Ingredients, cache_key
from xbuild.plan.emulate import Emulation, choose_emulation
from xbuild.plan.host import Host
from xbuild.plan.request import Request
from xbuild.record import HostPath
from xbuild.tree.inventory import read_inventory
from xbuild.tree.resolve import DirectoryReader, TreeReader
from xbuild.tree.survey import Survey, survey_at_start

_UNKNOWN = "unknown"


def key_of(request: Request) -> str:
    """Return the key for a tree or an image, and what it would be run by.

    That of an image is the key of the tree in it. Raises XbuildError subclasses.
    """
    if not os.path.isdir(request.target) and is_image(request.target):
        return _key_of_image(request)
    with DirectoryReader(request.target) as reader:
        return _key(request, reader, survey_at_start(reader))


def _key_of_image(request: Request) -> str:
    """Read the tree in an image, a compressed one unpacked for that, and change nothing."""
    with shown_unpacking(f"unpacking {request.target}") as progress:
        source = provide_source(request.target, writes=False, keep=False, progress=progress)
    with (
        lock_image(source.opened, exclusive=False),
        open_survey(
            source.opened,
            label=request.target,
            partition=request.partition,
            by_kernel=os.geteuid() == 0,
        ) as opened,
    ):
        require_root(opened.survey)
        assert opened.reader is not None
        assert opened.survey.tree is not None
        return _key(request, opened.reader, opened.survey.tree)


def _key(request: Request, reader: TreeReader, survey: Survey) -> str:
    emulations = choose_emulation(survey, request, Host.probe(), remember=True)
    return cache_key(
        Ingredients(
            emulations[0].arch.name,
            _version(emulations[0]),
            request.cpu,
            request.native,
            read_inventory(reader),
        )
    )


def _version(emulation: Emulation) -> str:
    if emulation.way in ("native", "native32"):
        return ""
    if emulation.interpreter is not None:
        return emulation.interpreter.version or _UNKNOWN
    if emulation.entry is None:
        return _UNKNOWN
    place = HostPath(emulation.entry.interpreter)  # the host's registry has it open
    try:
        return verified_interpreter(emulation.arch, override=place, remember=True).version or ""
    except InterpreterError:
        return _UNKNOWN
