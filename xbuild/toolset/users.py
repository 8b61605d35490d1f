"""Where a tree's users come from, and which native programs would not find all of them.

Modules of the C library that tell of users are the target's code, which no native program can load.
Those that read the tree's own files, a set has.
"""

from __future__ import annotations

from xbuild.errors import TargetError
from xbuild.record import GuestPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.tree.resolve import TreeReader

LOOKS_UP_USERS = frozenset(
    (
        *("bash", "dash", "make", "chgrp", "chown", "dir", "find", "install", "ls", "stat", "tar"),
        "vdir",
    )
)
"""Programs that make numbers of users' names, or names of numbers: ``~name`` in shells, too."""
_NSSWITCH = GuestPath("/etc/nsswitch.conf")
_SIZE_LIMIT = 1 << 16  # bytes
# That of systemd tells of users of services that it has started.
_SERVED = frozenset(("files", "compat", "systemd"))


def foreign_modules(reader: TreeReader) -> tuple[str, ...]:
    """Return the modules for users that nsswitch.conf(5) names, the tree has, and no set has."""
    try:
        text = reader.read(_NSSWITCH, _SIZE_LIMIT).decode("utf-8", "replace")
    except TargetError:
        return ()
    named = [service for service in _services(text) if service not in _SERVED]
    if not named:
        return ()
    directories = _library_directories(reader)
    modules = (f"libnss_{service}.so.2" for service in dict.fromkeys(named))
    return tuple(m for m in modules if any(reader.present(each, (m,)) for each in directories))


def _services(text: str) -> list[str]:
    found: list[str] = []
    for line in text.splitlines():
        database, _, services = line.partition("#")[0].partition(":")
        if database.strip() in ("passwd", "group"):
            for part in services.split("["):  # [NOTFOUND=return] and the like are no services
                found += part.rpartition("]")[2].split()
    return [service for service in found if "/" not in service]


def _library_directories(reader: TreeReader) -> list[GuestPath]:
    tops = [GuestPath(path) for path in ("/usr/lib", "/lib", "/usr/lib64", "/lib64")]
    try:
        names = reader.listdir(tops[0])
    except TargetError:
        names = ()
    return [*tops, *(GuestPath(f"{tops[0]}/{name}") for name in names if "-linux-" in name)]
