"""Compilers of a tree that a set knows nothing of: as when they came after it was made."""

from __future__ import annotations

from xbuild.errors import TargetError
from xbuild.record import GuestPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.toolset.manifest import Toolset
    from xbuild.tree.resolve import TreeReader

# Where GCC's own programs are, of which drivers by any name are the callers: TRIPLET/VERSION below.
_PLACES = (GuestPath("/usr/libexec/gcc"), GuestPath("/usr/lib/gcc"))
_COMPILERS = ("cc1", "cc1plus")


def strange_compilers(reader: TreeReader, toolset: Toolset) -> tuple[GuestPath, ...]:
    """Return GCC's compilers for C and C++ of the tree that are not in the set's list at all.

    Those for machines without Linux are passed over: no set has them.
    """
    known = {tool.path for tool in toolset.tools}
    found = []
    for place in _PLACES:
        for triplet in _names_in(reader, place):
            for version in _names_in(reader, f"{place}/{triplet}") if "-linux" in triplet else ():
                directory = GuestPath(f"{place}/{triplet}/{version}")
                found += [f"{directory}/{name}" for name in reader.present(directory, _COMPILERS)]
    return tuple(GuestPath(path) for path in found if path not in known)


def _names_in(reader: TreeReader, directory: str) -> tuple[str, ...]:
    try:
        return reader.listdir(GuestPath(directory))
    except TargetError:
        return ()
