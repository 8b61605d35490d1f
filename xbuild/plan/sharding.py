"""Packages shared out over the jobs of a CI service. Pure; there is no scheduler behind it."""

from __future__ import annotations

from xbuild.errors import UsageError
from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# They stand between others in a command line of a workflow: nothing there may mean more to a shell.
_PUNCTUATION = "+-._/:@=~^%,"
_LONGEST = 200
_MOST_WEIGHT = 10**9


class Package(Record):
    """Something to build; ``weight`` is how long it takes, in whatever unit all are."""

    name: str
    weight: float = 1.0


class Job(Record):
    """One job: ``shard`` of ``shards`` for an architecture, on a runner, None for any."""

    arch: str
    shard: int
    shards: int
    packages: tuple[str, ...]
    runner: str | None


def parse_packages(text: str, origin: str) -> tuple[Package, ...]:
    """Read lines ``NAME [WEIGHT]``; blank ones and what follows a # are passed over.

    Raises UsageError, with ``origin`` and the line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) > 2:
            raise UsageError(
                f"{origin}:{number}: not NAME [WEIGHT]: {line.strip()!r}",
                "such as app-editors/nano 40",
            )
        try:
            found.append(Package(checked_name(words[0]), *map(_weight, words[1:])))
        except UsageError as error:
            raise UsageError(f"{origin}:{number}: {error.message}", error.hint) from error
    return tuple(found)


def checked_name(name: str) -> str:
    """Return a package's name. Raises UsageError for one that a shell might take for more."""
    is_plain = name and all(c.isascii() and (c.isalnum() or c in _PUNCTUATION) for c in name)
    if not is_plain or name.startswith("-") or len(name) > _LONGEST:
        raise UsageError(f"Not a package's name: {name!r}", f"letters, digits and {_PUNCTUATION}")
    return name


def _weight(text: str) -> float:
    number = text.replace(".", "", 1)
    value = float(text) if number.isascii() and number.isdigit() else 0.0
    if not 0 < value <= _MOST_WEIGHT:
        raise UsageError(f"Not a weight: {text!r}", "a number, such as the seconds it takes")
    return value


def share_out(packages: tuple[Package, ...], shards: int) -> tuple[tuple[str, ...], ...]:
    """Return at most so many shares of about the same weight, none empty.

    The heaviest first, each to whom has least (Graham 1969: at most 4/3 of the best). Within a
    share they stand in the order in which they were given. The same input gives the same shares.
    """
    places = {package.name: place for place, package in enumerate(packages)}
    shares: list[list[str]] = [[] for _ in range(min(shards, len(packages)))]
    loads = [0.0] * len(shares)
    for package in sorted(packages, key=lambda each: (-each.weight, places[each.name])):
        least = loads.index(min(loads))
        shares[least].append(package.name)
        loads[least] += package.weight
    return tuple(tuple(sorted(share, key=places.__getitem__)) for share in shares)


def make_jobs(
    packages: tuple[Package, ...],
    arches: tuple[str, ...],
    shards: int,
    runners: Iterable[tuple[str | None, str]],
) -> tuple[Job, ...]:
    """Return a job for each share and architecture.

    ``runners`` are pairs of an architecture and a runner's label; those of an architecture's own
    come before those of None, for all. They take turns.
    """
    labels = tuple(runners)
    shares = share_out(packages, shards)
    jobs = []
    for arch in arches:
        own = [label for a, label in labels if a == arch]
        usable = own or [label for a, label in labels if a is None]
        for number, names in enumerate(shares):
            runner = usable[number % len(usable)] if usable else None
            jobs.append(Job(arch, number + 1, len(shares), names, runner))
    return tuple(jobs)
