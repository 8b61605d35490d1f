"""Versions of qemu with known faults: the list in known/interpreters.toml, and who has which.

Off the start path: for doctor, setup and failures.
"""

from __future__ import annotations

import functools
import os
import tomllib
from typing import TYPE_CHECKING, Any, Literal

from xbuild.emulation.versions import parse_version
from xbuild.record import Record
from xbuild.resources import data_directory

if TYPE_CHECKING:
    from xbuild.binary.arch import Arch

Kind = Literal["crash", "hang", "error", "wrong"]
FILE = "interpreters.toml"


class Fault(Record):
    """A fault of the versions from ``since`` (included) to ``before`` (not), "" where not known.

    ``architectures`` are qemu's names, () for all. ``exempt`` says which builds are without it.
    """

    architectures: tuple[str, ...]
    since: str
    before: str
    kind: Kind
    summary: str
    issue: str
    exempt: str = ""

    def affects(self, arch: Arch, version: str) -> bool:
        """Tell whether an interpreter for ``arch`` that calls itself ``version`` has it."""
        numbers = parse_version(version)
        return (
            bool(numbers)
            and (not self.architectures or arch.name in self.architectures)
            and parse_version(self.since) <= numbers
            and (not self.before or numbers < parse_version(self.before))
        )

    def in_words(self) -> str:
        """Return one line without the link."""
        return f"{self.summary} ({self.exempt} excepted)" if self.exempt else self.summary


@functools.cache
def known_faults() -> tuple[Fault, ...]:
    """Return the list, in the order of the file."""
    with open(os.path.join(data_directory("known"), FILE), "rb") as file:
        return tuple(_fault(row) for row in tomllib.load(file)["fault"])


def faults_of(arch: Arch, version: str | None) -> tuple[Fault, ...]:
    """Return what is known against this version for ``arch``; nothing of an unknown one."""
    return tuple(fault for fault in known_faults() if fault.affects(arch, version or ""))


def _fault(row: dict[str, Any]) -> Fault:  # Any: TOML values; a test checks the file's
    return Fault(
        tuple(row.get("architectures", ())),
        row.get("since", ""),
        row.get("before", ""),
        row["what"],
        row["summary"],
        row["issue"],
        row.get("except", ""),
    )
