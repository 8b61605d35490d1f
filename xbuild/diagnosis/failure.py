"""From how a command ended and what it wrote last to what is known of that.

Pure: values in, explanations out. A line is evidence where it matches as a whole, stands near the
end, and the run is such that the limit applies; a success is never explained.
"""

from __future__ import annotations

import re
import shlex

from xbuild.binary.arch import Arch
from xbuild.diagnosis.limits import Limit, known_limits
from xbuild.emulation.faults import Fault, faults_of
from xbuild.emulation.versions import parse_version
from xbuild.errors import EXIT_SIGNAL_BASE
from xbuild.record import Record

# Colours, and what else programs write to a terminal (ECMA-48); and what is overwritten by \r.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_SIGNAL_NAMES = {4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV"}
_MOST = 3
_LINE_LIMIT = 500  # characters: what is longer is no message


class Failure(Record):
    """How a command ended, ``status`` as a shell shows it, and what its run was.

    ``lines`` are the last that it wrote, () where nobody saw them; ``arch`` is what it was emulated
    as, None where it was not, and ``interpreter`` by which file; ``tmpfs`` are places of the
    container's own in memory.
    """

    status: int
    lines: tuple[str, ...]
    arch: Arch | None
    version: str | None
    traits: frozenset[str]
    tmpfs: tuple[str, ...]
    tree: str
    interpreter: str | None = None


class Explanation(Record):
    """What is known, and the very line, or the signal, that says that it happened."""

    limit: Limit
    evidence: str
    attempt: str
    faults: tuple[Fault, ...] = ()


def last_lines(output: bytes) -> tuple[str, ...]:
    """Return the lines of the end of an output, without what only a terminal shows."""
    text = _ESCAPES.sub("", output.decode("utf-8", "replace"))
    lines = (line.rstrip("\r").rpartition("\r")[2].strip() for line in text.split("\n"))
    return tuple(line for line in lines if line and len(line) <= _LINE_LIMIT)


def explain(failure: Failure) -> tuple[Explanation, ...]:
    """Return what is known of this failure, what was seen last leading; three at most."""
    if failure.status == 0:
        return ()
    found: list[tuple[int, Explanation]] = []
    for limit in known_limits():
        if _applies(limit, failure):
            at, evidence = _evidence(limit, failure)
            if evidence:
                found.append((at, _explanation(limit, evidence, failure)))
    found.sort(key=lambda each: each[0])
    return tuple(explanation for _, explanation in found[:_MOST])


def _applies(limit: Limit, failure: Failure) -> bool:
    lines_own = {"on-tmpfs"}
    if not limit.needs - lines_own <= failure.traits or limit.lacks & failure.traits:
        return False
    version = parse_version(failure.version or "")
    if limit.since and not (version and version >= parse_version(limit.since)):
        return False
    return not (limit.before and version and version >= parse_version(limit.before))


def _evidence(limit: Limit, failure: Failure) -> tuple[int, str]:
    """Return how far from the end the evidence is, and what it is, "" for none."""
    if limit.is_refuted_by(failure.lines):
        return 0, ""
    for at, line in enumerate(reversed(failure.lines[-limit.near :])):
        if limit.speaks_in(line) and _is_of_place(limit, line, failure):
            return at, line
    number = failure.status - EXIT_SIGNAL_BASE
    if number in limit.signals and not _is_dumped(failure):
        name = _SIGNAL_NAMES.get(number, f"signal {number}")
        return limit.near, f"it was ended by {name} (status {failure.status})"
    return 0, ""


def _is_of_place(limit: Limit, line: str, failure: Failure) -> bool:
    if "on-tmpfs" not in limit.needs | limit.lacks:
        return True
    names = any(re.search(rf"(?<![\w/.]){re.escape(p)}(?:/|\b)", line) for p in failure.tmpfs)
    return names if "on-tmpfs" in limit.needs else not names


def _is_dumped(failure: Failure) -> bool:
    """Tell whether qemu's own line about a signal was seen, which says more than the status."""
    return any(line.startswith("qemu: uncaught target signal ") for line in failure.lines)


def _explanation(limit: Limit, evidence: str, failure: Failure) -> Explanation:
    name = "ARCH" if failure.arch is None else failure.arch.common_name
    attempt = limit.attempt.replace("{arch}", name)
    attempt = attempt.replace("{interpreter}", shlex.quote(failure.interpreter or "qemu"))
    attempt = attempt.replace("{tree}", shlex.quote(failure.tree))
    known = faults_of(failure.arch, failure.version) if failure.arch is not None else ()
    return Explanation(
        limit, evidence, attempt, tuple(fault for fault in known if fault.kind in limit.faults)
    )
