"""Which set of native tools fits a tree, which of its programs are used, and why not the others."""

from __future__ import annotations

import os
import stat

from xbuild.binary.arch import arch_named
from xbuild.errors import TargetError, ToolsetDamaged, ToolsetMissing
from xbuild.record import HostPath, Record, replace
from xbuild.toolset.digests import Digests
from xbuild.toolset.integrity import check_toolset
from xbuild.toolset.manifest import LEVELS, read_toolset, sets_directory
from xbuild.toolset.strangers import strange_compilers
from xbuild.toolset.users import LOOKS_UP_USERS, foreign_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from xbuild.record import GuestPath
    from xbuild.toolset.manifest import Companion, Tool, Toolset
    from xbuild.tree.resolve import DirectoryReader

    Choice = Literal["exact", "fast"]

_CHANGED = "has changed since the set was prepared: xbuild native prepare TARGET"
_S_ISIDS = stat.S_ISUID | stat.S_ISGID


class Use(Record):
    """A tool to be used; the rest is how its file in the tree was when it was compared."""

    tool: Tool
    size: int
    mtime_ns: int
    ctime_ns: int


class Left(Record):
    """A program of the tree that stays emulated, and why."""

    tool: Tool
    reason: str


class Match(Record):
    """A set and a tree: what the set's programs stand in for.

    ``strange`` are compilers of the tree that the set knows nothing of.
    """

    toolset: Toolset
    choice: Choice
    uses: tuple[Use, ...]
    left: tuple[Left, ...]
    strange: tuple[GuestPath, ...] = ()


def list_toolsets() -> tuple[tuple[Toolset, ...], tuple[ToolsetDamaged, ...]]:
    """Return all sets of this user's that can be read, and what is wrong with the others.

    Sets of other users are passed over, but for root's.
    """
    sets: list[Toolset] = []
    damaged: list[ToolsetDamaged] = []
    directory = sets_directory()
    for name in _names_in(directory):
        path = HostPath(f"{directory}/{name}")
        if not _is_trusted(path):
            continue
        try:
            sets.append(read_toolset(path))
        except ToolsetDamaged as error:
            damaged.append(error)
    return tuple(sets), tuple(damaged)


def match_tree(
    reader: DirectoryReader, architecture: str, machine: str, choice: Choice, *, remember: bool
) -> Match:
    """Return the set that knows most of a tree's programs and least else, all its files checked.

    ``architecture`` is the tree's and ``machine`` the host's. What was read is kept if
    ``remember``. Raises ToolsetMissing where no set knows any, ToolsetDamaged.
    """
    sets, damaged = list_toolsets()
    digests = Digests(reader.label)
    best: Match | None = None
    for toolset in sets:
        if (toolset.architecture, toolset.machine) != (architecture, machine):
            continue
        match = _matched(reader, toolset, choice, digests)
        if match.uses and (best is None or _fitness(match) > _fitness(best)):
            best = match
    if best is None:
        raise damaged[0] if damaged else _missing(reader, architecture)
    check_toolset(best.toolset, remember=remember)
    if remember:
        digests.keep()
    strange = strange_compilers(reader, best.toolset)
    return _without_foreign_users(reader, replace(best, strange=strange))


def _without_foreign_users(reader: DirectoryReader, match: Match) -> Match:
    """Leave to emulation what looks users up where the tree has a module of its own for them."""
    modules = foreign_modules(reader)
    names = LOOKS_UP_USERS if modules else ()
    lost = [use for use in match.uses if os.path.basename(use.tool.path) in names]
    reason = f"it looks users up by {', '.join(modules)} as well, which is the tree's code"
    left = tuple(Left(replace(use.tool, level="none"), reason) for use in lost)
    uses = tuple(use for use in match.uses if use not in lost)
    return replace(match, uses=uses, left=match.left + left) if lost else match


def _fitness(match: Match) -> tuple[int, int]:
    return len(match.uses), -len(match.left)


def match_candidates(reader: DirectoryReader, directory: HostPath) -> Match:
    """Return all that the set in ``directory`` could stand in for, to be proven.

    Its files are not checked. Raises ToolsetDamaged.
    """
    toolset = read_toolset(directory)
    tools = tuple(replace(tool, level="exact") for tool in toolset.tools if tool.native)
    candidates = replace(toolset, tools=tools)
    return _matched(reader, candidates, "exact", Digests(reader.label))


def _names_in(directory: HostPath | None) -> list[str]:
    """Return the names of whole sets: what is being made has a dot before it."""
    try:
        names = sorted(os.listdir(directory)) if directory is not None else []
    except OSError:
        return []
    return [name for name in names if not name.startswith(".")]


def _is_trusted(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid in (0, os.geteuid())


def _matched(reader: DirectoryReader, toolset: Toolset, choice: Choice, digests: Digests) -> Match:
    uses: list[Use] = []
    left: list[Left] = []
    kept = {each.path for each in toolset.companions if _is_kept(reader, each, digests)}
    for tool in toolset.tools:
        found = _reason_against(tool, choice) or _look(reader, tool, digests)
        gone = next((path for path in tool.needs if path not in kept), None)
        if isinstance(found, Use) and gone is not None:
            found = f"{gone} {_CHANGED}"
        if isinstance(found, Use):
            uses.append(found)
        else:
            left.append(Left(tool, found))
    return Match(toolset, choice, tuple(uses), tuple(left))


def _reason_against(tool: Tool, choice: Choice) -> str:
    if LEVELS.index(tool.level) <= LEVELS.index(choice):
        return ""
    if tool.level == "fast":
        return f"only with --native=fast: {tool.reason or 'not covered by the proof'}"
    return tool.reason or ("no native program" if not tool.native else "not proven identical")


def _look(reader: DirectoryReader, tool: Tool, digests: Digests) -> Use | str:
    """Return how a tool's file is in the tree, or why it is not the file that the set knows."""
    try:
        if reader.resolve(tool.path) != tool.path:
            return "a symbolic link has come in its place"
        with reader.open(tool.path) as file:
            status = os.fstat(file.fileno())
            digest = digests.of(file.fileno())
    except (TargetError, OSError):
        return "it is not in the tree, or cannot be read"
    if status.st_mode & _S_ISIDS:
        return "it is set-user-ID or set-group-ID"
    if digest != tool.sha256:
        return f"it {_CHANGED}"
    return Use(tool, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _is_kept(reader: DirectoryReader, companion: Companion, digests: Digests) -> bool:
    try:
        with reader.open(companion.path) as file:
            return digests.of(file.fileno()) == companion.sha256
    except (TargetError, OSError):
        return False


def _missing(reader: DirectoryReader, architecture: str) -> ToolsetMissing:
    directory = sets_directory()
    strangers = [name for name in _names_in(directory) if not _is_trusted(f"{directory}/{name}")]
    hint = f"xbuild native prepare {reader.label}"
    if strangers:
        hint += f"\n{len(strangers)} in {directory} belong to another user, and are not used"
    name = arch_named(architecture).common_name
    return ToolsetMissing(
        f"No set of native tools was prepared for {reader.label} ({name}),"
        " or its compilers have changed since",
        hint,
    )
