"""Verification by meaning: a registration works when a foreign program runs.

Scope: one execution of a tiny program through the kernel, in the namespaces of the caller, and
words for why it failed. An entry's name, path and flags prove nothing; they only explain.
"""

from __future__ import annotations

import errno
import os

from xbuild.binary.arch import ARCHES, Arch
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
from xbuild.emulation.rules import ET_DYN, ET_EXEC, sample_header
from xbuild.emulation.trial import try_kernel
from xbuild.errors import BinfmtError
from xbuild.record import HostPath, Record, assert_never

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

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
        return Untested(f"xbuild has no test program for {arch.common_name}")
    try:
        outcome = try_kernel(arch)
    except OSError as error:
        return Fails(_why_not_started(arch, error, directory))
    return Works() if outcome.is_as_expected else Fails(_why_wrong(arch, outcome, directory))


class Finding(Record):
    """What an entry does for an architecture; ``arch`` is None when it is for none we know."""

    entry: Entry
    arch: Arch | None
    verification: Verification


def verify_entries(*, directory: HostPath = BINFMT_DIRECTORY) -> tuple[Finding, ...]:
    """Verify every entry for every architecture that it matches, newest entry first.

    An entry that another one or a switch keeps from its work fails. Raises BinfmtError when no
    binfmt_misc is mounted at ``directory``. Takes at most 10 s for each architecture.
    """
    entries = read_entries(directory)
    findings = []
    for entry in entries:
        arches = [arch for arch in ARCHES if _matches(entry, arch)]
        for arch in arches:
            findings.append(Finding(entry, arch, _verify_entry(entry, arch, entries, directory)))
        if not arches:
            findings.append(Finding(entry, None, Untested("not for programs of an architecture")))
    return tuple(findings)


def matched_arches(entries: Sequence[Entry]) -> tuple[Arch, ...]:
    """Return the architectures that some entry matches, disabled or not, in the table's order."""
    return tuple(arch for arch in ARCHES if any(_matches(entry, arch) for entry in entries))


def _matches(entry: Entry, arch: Arch) -> bool:
    return any(entry.matches(sample_header(arch, elf_type=t)) for t in (ET_EXEC, ET_DYN))


def _verify_entry(
    entry: Entry, arch: Arch, entries: Sequence[Entry], directory: HostPath
) -> Verification:
    if not entry.enabled:
        return Fails("it is disabled")
    winner = next(e for e in entries if e.enabled and _matches(e, arch))
    if winner != entry:
        return Fails(f"the newer entry {winner.name} shadows it")
    return verify_registration(arch, directory=directory)


def _why_not_started(arch: Arch, error: OSError, directory: HostPath) -> str:
    verdict = _judged(arch, directory)
    if verdict is None:
        return f"{error.strerror}, and no binfmt_misc is mounted at {directory}"
    match verdict:
        case Missing():
            why = f"no entry matches {arch.common_name} programs ({error.strerror})"
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
