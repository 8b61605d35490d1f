"""The cache of sets: published whole or not at all, found again, removed.

Where it is and what a set's manifest says is ``toolset.manifest``'s. Writers hold the cache's lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

from xbuild.errors import ToolsetDamaged, ToolsetMissing
from xbuild.record import HostPath, Record, replace
from xbuild.source.apt import Progress
from xbuild.source.cache import locked, size_of, work_directory
from xbuild.toolset.integrity import check_toolset
from xbuild.toolset.manifest import Toolset, native_directory, read_toolset

RECIPE = "recipe"
_SETS = "sets"
_UNFINISHED = ".new-"
_DOWNLOADS = "downloads"


class Removed(Record):
    """What was deleted from the cache, and how much room that gave back."""

    path: HostPath
    size_bytes: int


def find_by_recipe(directory: HostPath, recipe: str) -> Toolset | None:
    """Return the set that was made by a recipe; None where there is none that can be read."""
    for place in _places(directory):
        try:
            with open(f"{place}/{RECIPE}", encoding="ascii") as file:
                if file.read().strip() == recipe:
                    return read_toolset(place)
        except (OSError, ValueError, ToolsetDamaged):
            continue
    return None


@contextlib.contextmanager
def unfinished_set(directory: HostPath) -> Iterator[tuple[HostPath, HostPath]]:
    """Lend a scratch directory and the directory of a set to be, both inside the cache.

    What earlier, killed processes left is removed first; a set that is not published by the end is
    removed too. The caller has locked the cache.
    """
    sets = f"{directory}/{_SETS}"
    os.makedirs(sets, exist_ok=True)
    _remove_unfinished(directory)
    with work_directory(directory) as work:
        place = tempfile.mkdtemp(prefix=_UNFINISHED, dir=sets)
        try:
            os.chmod(place, 0o755)
            yield work, HostPath(place)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def publish(directory: HostPath, place: HostPath, toolset: Toolset, recipe: str) -> Toolset:
    """Give the finished set at ``place`` its name; it takes the place of those of its recipe."""
    with open(f"{place}/{RECIPE}", "w", encoding="ascii") as file:
        file.write(recipe + "\n")
    older = find_by_recipe(directory, recipe)
    if older is not None:
        shutil.rmtree(older.directory)
    final = HostPath(f"{directory}/{_SETS}/{toolset.digest}")
    if os.path.lexists(final):
        shutil.rmtree(final)
    os.rename(place, final)
    return replace(toolset, directory=final)


def remove_sets(prefixes: tuple[str, ...], progress: Progress) -> tuple[Removed, ...]:
    """Delete the sets whose digests begin so; running containers keep what they have open.

    Raises ToolsetMissing for a prefix that no set has, before anything is deleted.
    """
    directory = _existing_directory()
    _named(directory, prefixes)  # before the lock: who misspells a name does not wait for it
    with locked(directory, progress):
        return tuple(_remove(place) for place in _named(directory, prefixes))


def _named(directory: HostPath, prefixes: tuple[str, ...]) -> list[HostPath]:
    chosen: dict[HostPath, None] = {}
    for prefix in prefixes:
        places = [p for p in _places(directory) if os.path.basename(p).startswith(prefix)]
        if not places or not prefix:
            raise ToolsetMissing(f"No set of native tools {prefix!r}", "xbuild native list")
        chosen.update(dict.fromkeys(places))
    return list(chosen)


def prune_cache(progress: Progress) -> tuple[Removed, ...]:
    """Delete what no run can use: damaged and unfinished sets, and downloaded packages."""
    directory = _existing_directory()
    with locked(directory, progress):
        removed = _remove_unfinished(directory)
        for place in _places(directory):
            try:
                check_toolset(read_toolset(place), remember=False)
            except ToolsetDamaged as error:
                progress(error.message, None)
                removed.append(_remove(place))
        if os.path.isdir(f"{directory}/{_DOWNLOADS}"):
            removed.append(_remove(HostPath(f"{directory}/{_DOWNLOADS}")))
        return tuple(removed)


def _existing_directory() -> HostPath:
    directory = native_directory()
    if directory is None or not os.path.isdir(directory):
        raise ToolsetMissing("There are no sets of native tools", "xbuild native prepare TARGET")
    return directory


def _places(directory: HostPath) -> list[HostPath]:
    sets = f"{directory}/{_SETS}"
    names = sorted(os.listdir(sets)) if os.path.isdir(sets) else []
    return [HostPath(f"{sets}/{name}") for name in names if not name.startswith(".")]


def _remove_unfinished(directory: HostPath) -> list[Removed]:
    sets = f"{directory}/{_SETS}"
    names = os.listdir(sets) if os.path.isdir(sets) else []
    return [_remove(HostPath(f"{sets}/{name}")) for name in names if name.startswith(_UNFINISHED)]


def _remove(place: HostPath) -> Removed:
    size = size_of(place)
    shutil.rmtree(place, ignore_errors=True)
    return Removed(place, size)
