"""Failures explained: what is known of how a command ended, in words.

Off the start path: loaded when a command has failed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from xbuild.cli.output import visible
from xbuild.diagnosis.circumstances import failure_of
from xbuild.diagnosis.failure import explain

if TYPE_CHECKING:
    from xbuild.diagnosis.failure import Explanation, Failure
    from xbuild.plan.steps import Plan

_UNKNOWN = "the emulator's version, and so its own faults: its file cannot be asked (--dry-run)"


def say(plan: Plan, status: int, output: bytes) -> None:
    """Write on standard error what is known of this end, if anything is."""
    if sys.stderr is None:
        return
    lines: list[str] = []
    failure = failure_of(plan, status, output)
    for each in explain(failure):
        lines += [f"xbuild: known limit: {each.limit.cause}", *_details(each, failure)]
    try:
        sys.stderr.write("".join(f"{visible(line)}\n" for line in lines))
        sys.stderr.flush()
    except OSError:
        return  # nobody listens


def explained(plan: Plan, status: int, output: bytes) -> tuple[str, ...]:
    """Return the same, one text for each thing that is known."""
    failure = failure_of(plan, status, output)
    return tuple(
        f"known limit: {each.limit.cause};{';'.join(_details(each, failure))}"
        for each in explain(failure)
    )


def _details(explanation: Explanation, failure: Failure) -> list[str]:
    is_unknown = failure.arch is not None and failure.version is None
    return [
        f" seen: {explanation.evidence}",
        f" reported: {explanation.limit.issue}",
        f" try: {explanation.attempt}",
        *([f" not known: {_UNKNOWN}"] if is_unknown else []),
        *(f" known of this version: {f.in_words()}: {f.issue}" for f in explanation.faults),
    ]
