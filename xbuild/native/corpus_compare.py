"""Compare what two runs of the corpus left, and say for each tool whether and where they differ."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from xbuild.errors import EXIT_NOT_EXECUTABLE
from xbuild.native.corpus_case import Case
from xbuild.native.outputs import read_output
from xbuild.record import Record

_TOLD = 3  # of a tool's differences: the others are counted
# mkstemp(3) by GCC and by clang, as drivers and messages show it.
_TEMPORARY = re.compile(rb"/tmp/(?:cc[A-Za-z0-9]{6}|[a-z]+-[0-9a-f]{6}\b)")
_LIMIT = 256 << 20  # bytes of what a case leaves
_STATUS_LIMIT = 16  # bytes
_KINDS = ("stdout", "stderr", "status", "plan")


class Difference(Record):
    """``what`` differs between the two runs of a case."""

    case: Case
    what: str


class Outcome(Record):
    """All cases of one tool: how many there were, and what the emulated program did with them.

    It ``succeeded`` with status 0; it ``answered`` where it ran at all.
    """

    cases: int
    succeeded: int
    answered: int
    differences: tuple[Difference, ...]

    @property
    def is_nuance(self) -> bool:
        """Whether only such cases differ as programs seldom meet."""
        return all(each.case.nuance for each in self.differences)

    @property
    def reason(self) -> str:
        """Say which cases differ, and in what."""
        if self.is_nuance:
            return "; ".join(dict.fromkeys(each.case.nuance for each in self.differences))
        hard = [each for each in self.differences if not each.case.nuance]
        told = [f"{each.case.title}: {each.what}" for each in hard[:_TOLD]]
        more = f" and {len(hard) - _TOLD} more" if len(hard) > _TOLD else ""
        return f"{len(hard)} of {self.cases} cases differ ({'; '.join(told)}{more})"


def compare(cases: tuple[Case, ...], emulated: str, native: str) -> dict[str, Outcome]:
    """Compare two directories of outputs; a case that did not run emulated counts for nothing."""
    left, right = _by_case(cases, emulated), _by_case(cases, native)
    outcomes: dict[str, Outcome] = {}
    for case in cases:
        if f"{case.name}.status" not in left.get(case.name, ()):
            continue
        found = tuple(
            Difference(case, what)
            for what in _differences(
                emulated, native, left[case.name], right.get(case.name, frozenset())
            )
        )[:1]
        status = _status(f"{emulated}/{case.name}.status")
        for tool in case.tools:
            old = outcomes.get(tool, Outcome(0, 0, 0, ()))
            outcomes[tool] = Outcome(
                old.cases + 1,
                old.succeeded + (status == 0),
                old.answered + (0 <= status < EXIT_NOT_EXECUTABLE),
                (*old.differences, *found),
            )
    return outcomes


def _by_case(cases: tuple[Case, ...], directory: str) -> dict[str, frozenset[str]]:
    """Sort the names in a directory by the case that left them: the longest that begins it."""
    names = {case.name for case in cases}
    found: dict[str, set[str]] = {}
    for name in os.listdir(directory):
        stem = name
        while stem and stem not in names:
            stem = stem.rpartition(".")[0]
        if not name.endswith(".plan"):
            found.setdefault(stem, set()).add(name)
    return {name: frozenset(files) for name, files in found.items()}


def _differences(
    emulated: str, native: str, left: frozenset[str], right: frozenset[str]
) -> Iterator[str]:
    status = next((name for name in left if name.endswith(".status")), "")
    if status in right and _status(f"{emulated}/{status}") != _status(f"{native}/{status}"):
        yield f"exit status {_status(f'{native}/{status}')}, not {_status(f'{emulated}/{status}')}"
    for name in sorted(left ^ right):
        yield f"{_suffix(name)} is {'missing' if name in left else 'more'}"
    for name in sorted(left & right):
        yield from _path_differences(f"{emulated}/{name}", f"{native}/{name}", _suffix(name))


def _path_differences(left: str, right: str, shown: str) -> Iterator[str]:
    if os.path.islink(left) or os.path.islink(right):
        if not (os.path.islink(left) and os.path.islink(right)) or (
            os.readlink(left) != os.readlink(right)
        ):
            yield f"{shown} links elsewhere"
    elif os.path.isdir(left) and os.path.isdir(right):
        names, others = set(os.listdir(left)), set(os.listdir(right))
        for name in sorted(names ^ others):
            yield f"{shown}/{name} is only in one"
        for name in sorted(names & others):
            yield from _path_differences(f"{left}/{name}", f"{right}/{name}", f"{shown}/{name}")
    elif os.stat(left).st_mode != os.stat(right).st_mode:
        yield f"{shown} has mode {os.stat(right).st_mode:o}, not {os.stat(left).st_mode:o}"
    elif os.path.isfile(left):
        yield from _content_difference(left, right, shown)


def _content_difference(left: str, right: str, shown: str) -> Iterator[str]:
    one, other = read_output(left, _LIMIT), read_output(right, _LIMIT)
    if one is None or other is None:
        yield f"{shown} is no file"
        return
    if len(one) == _LIMIT:
        yield f"{shown} is too large to be compared"
    if left.endswith((".stdout", ".stderr")):
        one, other = (_TEMPORARY.sub(b"/tmp/cc", text) for text in (one, other))
    if one != other:
        sections = differing_sections(left, right)
        yield f"{shown} differs" + (f" in {', '.join(sections)}" if sections else "")


def differing_sections(left: str, right: str) -> tuple[str, ...]:
    """Return the names of the sections in which two ELF files differ; empty for other files."""
    try:
        with open(left, "rb") as first, open(right, "rb") as second:
            one = [(s.name, s.data()) for s in ELFFile(first).iter_sections()]
            other = [(s.name, s.data()) for s in ELFFile(second).iter_sections()]
    except (ELFError, OSError):
        return ()
    names = dict.fromkeys(name for name, _ in (*one, *other))
    return tuple(
        name
        for name in names
        if [data for key, data in one if key == name] != [d for key, d in other if key == name]
    )


def _status(path: str) -> int:
    said = read_output(path, _STATUS_LIMIT) or b""
    return int(said) if said.strip().isdigit() else -1


def _suffix(name: str) -> str:
    return name.rpartition(".")[2] if name.endswith(_KINDS) else name
