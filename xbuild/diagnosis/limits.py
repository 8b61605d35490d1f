"""The list of known limits, known/limits.toml, and which of them a line of output speaks of."""

from __future__ import annotations

import functools
import os
import re
import tomllib
from typing import Any, Literal, get_args

from xbuild.emulation.faults import Kind
from xbuild.record import Record
from xbuild.resources import data_directory

Trait = Literal[
    "emulated",
    "32-bit",
    "ephemeral",
    "on-tmpfs",
    "one-id",
    "no-setuid",
    "seccomp",
    "network-none",
    "read-only",
    "scaffold",
]
"""What may hold of a run; ``on-tmpfs`` of a line: it names a path on a tmpfs of the container's."""

TRAITS: tuple[str, ...] = get_args(Trait)
FILE = "limits.toml"
NEAR = 40  # lines from the end, unless a limit says otherwise


class Limit(Record):
    """One limit; the fields are those of the file, and stand explained there."""

    name: str
    lines: tuple[re.Pattern[str], ...]
    unless: tuple[re.Pattern[str], ...]
    signals: tuple[int, ...]
    commands: tuple[re.Pattern[str], ...]
    waits: frozenset[str]
    needs: frozenset[str]
    lacks: frozenset[str]
    near: int
    since: str
    before: str
    faults: tuple[Kind, ...]
    cause: str
    issue: str
    attempt: str
    retry: bool

    def speaks_in(self, line: str) -> bool:
        """Tell whether a whole line is one of this limit's."""
        return any(pattern.fullmatch(line) for pattern in self.lines)

    def is_refuted_by(self, lines: tuple[str, ...]) -> bool:
        """Tell whether one of the lines says that it was something else."""
        return any(pattern.fullmatch(line) for pattern in self.unless for line in lines)


@functools.cache
def known_limits() -> tuple[Limit, ...]:
    """Return the list, in the order of the file: where several apply, the first leads."""
    with open(os.path.join(data_directory("known"), FILE), "rb") as file:
        return tuple(_limit(row) for row in tomllib.load(file)["limit"])


def limit_named(name: str) -> Limit:
    """Return a limit of the list by its name. Raises KeyError."""
    return {limit.name: limit for limit in known_limits()}[name]


def _limit(row: dict[str, Any]) -> Limit:  # Any: TOML values; a test checks the file's
    return Limit(
        row["name"],
        _patterns(row, "lines"),
        _patterns(row, "unless"),
        tuple(row.get("signals", ())),
        _patterns(row, "commands"),
        frozenset(row.get("waits", ())),
        frozenset(row.get("needs", ())),
        frozenset(row.get("lacks", ())),
        row.get("near", NEAR),
        row.get("since", ""),
        row.get("before", ""),
        tuple(row.get("faults", ())),
        row["cause"],
        row["issue"],
        row["attempt"],
        row.get("retry", False),
    )


def _patterns(row: dict[str, Any], key: str) -> tuple[re.Pattern[str], ...]:  # Any: as above
    return tuple(re.compile(text) for text in row.get(key, ()))
