"""Values in profiles that are worked out for each run: ``{chost}``, ``{jobs}`` (docs/profiles.md).

Scope: which there are, finding and replacing them, and sizes from a machine's memory. Pure; what is
asked of the tree and the host is the caller's.
"""

from __future__ import annotations

import re

from xbuild.errors import UsageError
from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

COMPUTED = {
    "arch": "the tree's architecture by qemu's name, such as aarch64",
    "cache": "xbuild's cache directory on the host",
    "ccache": "ccache, where the tree has the program",
    "chost": "the tree's CHOST: make.conf's, else that of its programs",
    "cores": "how many processors a run may use",
    "cpu": "qemu's processor model that the CFLAGS in make.conf ask for",
    "half_memory": "half of the memory that a run may use, in MiB, as tmpfs takes it",
    "jobs": "one job for each processor, and no more than one for each GiB of the other half",
    "policies": "xbuild's own directory of files that profiles show inside (profiles/)",
    "portage_features": "FEATURES that do not work here, each with a minus",
    "portage_user": "root, where the container has one user id only",
}
"""Each name with what it stands for; one that comes to nothing leaves its setting out."""

_PLACE = re.compile(r"(?<!\$)\{(\{[a-z_]+\}|[a-z_]+)\}")
_MIB = 1 << 20
_JOB_BYTES = 1 << 30  # what a compiler under emulation takes at its worst, roughly


class Shares(Record):
    """What builds may use: processors, jobs at once, and bytes to build in."""

    cores: int
    jobs: int
    scratch_bytes: int


def names_in(text: str) -> tuple[str, ...]:
    """Return the computed values that ``text`` names. Raises UsageError for an unknown one."""
    names = tuple(found[1] for found in _PLACE.finditer(text) if not found[1].startswith("{"))
    for name in names:
        if name not in COMPUTED:
            raise UsageError(f"no computed value is called {{{name}}}", _suggestion(name))
    return names


def has_computed(text: str) -> bool:
    """Tell whether something in ``text`` is to be replaced."""
    return _PLACE.search(text) is not None


def expand(text: str, value_of: Callable[[str], str]) -> str | None:
    """Replace ``{name}`` by its value and ``{{name}}`` by ``{name}``; ``${name}`` stays.

    None where values came to nothing and nothing else is left. Raises UsageError, and what
    ``value_of`` raises.
    """
    values = {name: value_of(name) for name in names_in(text)}

    def replaced(found: re.Match[str]) -> str:
        name = found[1]
        return name if name.startswith("{") else values[name]

    expanded = _PLACE.sub(replaced, text)
    if "" not in values.values():
        return expanded
    return " ".join(expanded.split()) or None


def literal(text: str) -> str:
    """Return what expands to ``text``: for settings that somebody else has written."""
    return _PLACE.sub(lambda found: f"{{{found[0]}}}", text)


def share(cores: int, memory_bytes: int) -> Shares:
    """Share a machine out: half of its memory to build in, half for compilers."""
    half = memory_bytes // 2
    return Shares(cores, max(1, min(cores, half // _JOB_BYTES)), max(half, 64 * _MIB))


def in_mib(size_bytes: int) -> str:
    """Return a size as tmpfs(5) takes it."""
    return f"{size_bytes // _MIB}m"


def _suggestion(name: str) -> str:
    import difflib  # only for a mistake

    close = difflib.get_close_matches(name, COMPUTED, 1)
    return f"did you mean {{{close[0]}}}?" if close else f"a brace is written {{{{{name}}}}}"
