"""Verification by meaning: a registration works when a foreign program runs.

Scope: one execution of a tiny program through the kernel, in the namespaces of the caller, and
words for why it failed. An entry's name, path and flags prove nothing; they only explain.
"""

from __future__ import annotations

import errno
import os

from xbuild.binary.write import has_tiny_program
from xbuild.emulation.registry import (
    BINFMT_DIRECTORY,
    Conflicting,
    Entry,
    Missing,
    Usable,
    is_registry_enabled,
    judge,
    read_entries,
)
from xbuild.emulation.trial import try_kernel
from xbuild.errors import BinfmtError
from xbuild.record import HostPath, Record, assert_never

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from xbuild.binary.arch import Arch
    from xbuild.emulation.registry import Verdict
    from xbuild.emulation.trial import Outcome


class Works(Record):
    """A program of the architecture ran, wrote what it should and ended as it should."""


class Fails(Record):
    """It did not; ``reason`` is a clause that names the entry at fault, if one is."""

    reason: str


class Untested(Record):
    """There is no program of the architecture to try."""

    reason: str


Verification: TypeAlias = "Works | Fails | Untested"


def verify_registration(arch: Arch, *, directory: HostPath = BINFMT_DIRECTORY) -> Verification:
    """Execute a program of ``arch`` here and now, as any program is executed.

    ``directory`` is where this user namespace's binfmt_misc is mounted, if it is; it is read only
    to explain a failure. Takes at most 10 s.
    """
    if not has_tiny_program(arch):
        return Untested(f"xbuild has no test program for {arch.name}")
    try:
        outcome = try_kernel(arch)
    except OSError as error:
        return Fails(_why_not_started(arch, error, directory))
    return Works() if outcome.is_as_expected else Fails(_why_wrong(arch, outcome, directory))


def _why_not_started(arch: Arch, error: OSError, directory: HostPath) -> str:
    verdict = _judged(arch, directory)
    if verdict is None:
        return f"{error.strerror}, and no binfmt_misc is mounted at {directory}"
    match verdict:
        case Missing():
            why = f"no entry matches {arch.name} programs ({error.strerror})"
        case Conflicting(entry, reason) if error.errno == errno.ENOEXEC:
            why = f"the entry {entry.name} {reason}"
        case Conflicting(entry, _) | Usable(entry):
            why = _why_entry_fails(entry, error)
        case _:
            assert_never(verdict)
    return why


def _why_entry_fails(entry: Entry, error: OSError) -> str:
    path = entry.interpreter
    if error.errno == errno.ENOENT and not os.path.exists(path):
        return f"the entry {entry.name} names {path}, which is not there"
    if error.errno == errno.ELOOP:
        return f"the entry {entry.name} matches its own interpreter, {path}"
    return f"the entry {entry.name} names {path}: {error.strerror}"


def _why_wrong(arch: Arch, outcome: Outcome, directory: HostPath) -> str:
    verdict = _judged(arch, directory)
    if isinstance(verdict, Usable | Conflicting):
        entry = verdict.entry
        return f"the entry {entry.name} gives it to {entry.interpreter}: {outcome.describe()}"
    return f"the program did not do what it should: {outcome.describe()}"


def _judged(arch: Arch, directory: HostPath) -> Verdict | None:
    try:
        return judge(arch, read_entries(directory), is_enabled=is_registry_enabled(directory))
    except BinfmtError:
        return None
