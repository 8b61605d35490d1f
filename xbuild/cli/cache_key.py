"""``xbuild run --cache-key``: what a CI service may keep for the next job, and what it may not."""

from __future__ import annotations

import os

from xbuild.emulation.interpreters import verified_interpreter
from xbuild.errors import InterpreterError, UsageError
from xbuild.plan.cache_key import Ingredients, cache_key
from xbuild.plan.emulate import Emulation, choose_emulation
from xbuild.plan.host import Host
from xbuild.plan.request import Request
from xbuild.record import HostPath
from xbuild.tree.inventory import read_inventory
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import survey_at_start

_UNKNOWN = "unknown"


def key_of(request: Request) -> str:
    """Return the key for a tree and what it would be run by. Raises XbuildError subclasses."""
    if os.path.isfile(request.target):
        raise UsageError("--cache-key is for trees", f"{request.target} is none")
    with DirectoryReader(request.target) as reader:
        survey = survey_at_start(reader)
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
