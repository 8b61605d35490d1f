"""What the options mean that limit resources and map ids. Loaded where one of them is used."""

from __future__ import annotations

from xbuild.cli.sizes import parse_size
from xbuild.errors import UsageError
from xbuild.plan.ids import IdRange
from xbuild.plan.request import Request
from xbuild.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.cli.options import Parsed

_IDS = (1 << 32) - 1  # the last number is none: setresuid(2)
_MOST_WEIGHT = 10000
_MOST_PIDS = 1 << 22  # linux/threads.h: PID_MAX_LIMIT
_LEAST_CPUS, _MOST_CPUS = 0.01, 8192.0


def with_ids(request: Request, parsed: Parsed) -> Request:
    """Return a request with the id maps that were given. Raises UsageError."""
    uids = tuple(id_range(text) for text in parsed.many("uid_map"))
    gids = tuple(id_range(text) for text in parsed.many("gid_map"))
    if not uids:
        raise UsageError("--gid-map goes with --uid-map", "--uid-map alone is for groups as well")
    if parsed.one("private_users") == "identity":
        raise UsageError(
            "--private-users identity is a map of its own, and --uid-map another", "say one of them"
        )
    return replace(request, uid_map=uids, gid_map=gids)


def id_range(text: str) -> IdRange:
    """Parse a range of ids. Raises UsageError."""
    parts = text.split(":")
    if len(parts) == 3 and all(part.isascii() and part.isdigit() for part in parts):
        inside, outside, count = (int(part[:12]) for part in parts)
        if count and max(inside, outside) + count <= _IDS:
            return IdRange(inside, outside, count)
    raise UsageError(f"Not a range of ids: {text}", "INSIDE:OUTSIDE:COUNT, such as 0:100000:65536")


def with_limits(request: Request, parsed: Parsed) -> Request:
    """Return a request with what these options say. Raises UsageError."""
    said = {key: parsed.one(key) for key in ("memory", "cpus", "pids", "io_weight")}
    values = {key: read_limit(key, text) for key, text in said.items() if text is not None}
    return replace(request, **values)


def read_limit(key: str, text: str) -> int | float:
    """Parse the value of an option by its key. Raises UsageError."""
    match key:
        case "memory":
            try:
                return parse_size(text)
            except ValueError as error:
                raise UsageError(
                    f"--memory: {error}",
                    "K, M, G and T are units of 1024, KB, MB, GB and TB of 1000",
                ) from error
        case "cpus":
            return _processors(text)
        case "pids":
            return _whole("--pids", text, _MOST_PIDS)
        case _:
            return _whole("--io-weight", text, _MOST_WEIGHT)


def _processors(text: str) -> float:
    plain = text.replace(".", "", 1)
    value = float(text) if plain.isascii() and plain.isdigit() else 0.0
    if not _LEAST_CPUS <= value <= _MOST_CPUS:
        raise UsageError(f"--cpus takes a number of processors, not {text!r}", "such as 2 or 0.5")
    return value


def _whole(option: str, text: str, most: int) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < len(str(most)) + 1 else 0
    if not 1 <= value <= most:
        raise UsageError(
            f"{option} takes a whole number from 1 to {most}, not {text!r}", f"such as {option} 100"
        )
    return value
