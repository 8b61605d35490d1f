"""Native tools in a plan: which set, by what way, and the steps that it takes."""

from __future__ import annotations

from xbuild.binary.arch import host_arch
from xbuild.errors import HostUnable, InterpreterError, NoDispatcher
from xbuild.plan import steps
from xbuild.plan.substitution import AboutToolset, Substitution
from xbuild.record import GuestPath, HostPath, Record, replace
from xbuild.toolset.dispatcher import dispatching
from xbuild.toolset.manifest import INSIDE
from xbuild.toolset.match import match_candidates, match_tree
from xbuild.tree.resolve import DirectoryReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from xbuild.emulation.interpreters import Interpreter
    from xbuild.plan.emulate import Emulation
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Owner, Step
    from xbuild.toolset.manifest import Tool
    from xbuild.toolset.match import Left, Match, Use
    from xbuild.tree.resolve import TreeReader

    Way = Literal["exec", "bind"]


_TOLD = 4  # programs that a note names
# Of these, some command lines are the tree's own programs' alone: they are not for bind mounts.
_ARGUMENTS_DECIDE = ("driver", "coreutils", "text")
# What these do follows the locale, and the proof knows those alone that a C library has built in.
_BY_LOCALE = ("shell", "make", "coreutils", "text", "archiver", "other")
# What qemu shows emulated programs in place of the kernel's own file (its do_openat).
_MADE_UP = {"coreutils": ("*/proc/cpuinfo*",), "text": ("*/proc/cpuinfo*",)}


class Native(Record):
    """The native tools of one run. ``way`` is ``bind`` where nothing can be done at exec."""

    match: Match
    way: Way
    notes: tuple[str, ...] = ()


def choose_native(
    reader: TreeReader,
    request: Request,
    emulations: tuple[Emulation, ...],
    *,
    remember: bool,
) -> tuple[Native | None, tuple[Emulation, ...]]:
    """Return the native tools that were asked for, and the ways to run with them.

    None where the tree's leading architecture needs no emulation. The interpreter that
    substitutes at exec is made and verified if ``remember``. Raises ToolsetError subclasses, and
    HostUnable for an image that is not mounted.
    """
    leading = emulations[0]
    if request.native == "off" or leading.way in ("native", "native32"):
        return None, emulations
    if not isinstance(reader, DirectoryReader):
        raise HostUnable(
            f"Cannot tell which programs of {reader.label} to run natively: the kernel does not"
            " mount this image, so that its files have no identity to go by",
            "run xbuild as root, or without --native",
        )
    machine = host_arch().name
    if request.toolset is not None:
        match = match_candidates(reader, request.toolset)
    else:
        match = match_tree(reader, leading.arch.name, machine, request.native, remember=remember)
    if leading.way != "private" or leading.interpreter is None:
        why = "the host's registry runs this tree's programs"
        return Native(match, "bind", (_bind_note(why),)), emulations
    try:
        path = dispatching(leading.interpreter.path, machine, remember=remember)
        interpreter = _verified(leading.interpreter, path, remember=remember)
    except (NoDispatcher, InterpreterError) as error:
        return Native(match, "bind", (_bind_note(error.message),)), emulations
    return Native(match, "exec"), (replace(leading, interpreter=interpreter), *emulations[1:])


def _verified(original: Interpreter, path: HostPath, *, remember: bool) -> Interpreter:
    from xbuild.emulation.interpreters import verified_interpreter

    if not remember:
        return replace(original, path=path)
    return verified_interpreter(original.arch, override=path, remember=True)


def _bind_note(why: str) -> str:
    return (
        f"native tools are bound over the tree's own, not chosen at exec ({why}): readers see"
        " them instead of the tree's files, and a package manager cannot replace those"
    )


def native_steps(native: Native, run: GuestPath, owner: Owner) -> list[Step]:
    """Return the steps that bring a set into the view, whose /run is ``run``."""
    inside = GuestPath(f"{run}{INSIDE.removeprefix('/run')}")
    toolset = native.match.toolset
    found: list[Step] = [
        steps.Directory(inside, 0o755, owner),
        steps.Bind(toolset.root, inside, read_only=True, recursive=False),
    ]
    if native.way == "bind":
        for tool in _bindable(native):
            source = HostPath(f"{toolset.root}/{tool.native}")
            found.append(steps.Bind(source, tool.path, read_only=True, recursive=False))
        return found
    table = GuestPath(f"{inside}.table")
    substitutions = tuple(_substitution(use) for use in native.match.uses)
    emulated = tuple((left.tool.path, left.reason) for left in native.match.left)
    about = AboutToolset(
        toolset.digest, toolset.provider, toolset.corpus, native.match.choice, emulated
    )
    found.append(steps.Substitute(table, substitutions, about, owner))
    return found


def _bindable(native: Native) -> list[Tool]:
    """Return what can be bound: nobody looks at the arguments then."""
    tools = (use.tool for use in native.match.uses)
    return [
        t for t in tools if not t.arguments and not (t.kind in _ARGUMENTS_DECIDE and t.emulate_for)
    ]


def _substitution(use: Use) -> Substitution:
    tool = use.tool
    return Substitution(
        tool.path,
        GuestPath(f"{INSIDE}/{tool.native}"),
        tool.kind,
        tool.verdict,
        tool.reason,
        tool.arguments,
        (*tool.emulate_for, *_MADE_UP.get(tool.kind, ())),
        tool.drops_preload,
        tool.kind in _BY_LOCALE,
        use.size,
        use.mtime_ns,
        use.ctime_ns,
    )


def native_notes(native: Native) -> list[str]:
    """Return what the reader of a plan should know about its native tools."""
    notes = list(native.notes)
    if native.way == "bind":
        notes.append(_about_bound(native))
    unproven = [use.tool.path for use in native.match.uses if use.tool.level == "fast"]
    if unproven:
        notes.append(f"native tools beyond the proof: {_counted(unproven)}, which --dry-run names")
    changed = [left.tool.path for left in native.match.left if _is_wanted(left, native)]
    if changed:
        notes.append(
            f"no longer as when their native tools were prepared, and emulated:"
            f" {_enumerated(changed)}; xbuild native prepare"
        )
    if native.match.strange:
        notes.append(
            f"compilers that this set of native tools does not know, and emulated:"
            f" {', '.join(native.match.strange)}; xbuild native prepare"
        )
    return notes


def _enumerated(paths: list[GuestPath]) -> str:
    if len(paths) <= _TOLD:
        return ", ".join(paths)
    return f"{', '.join(paths[:_TOLD])} and {len(paths) - _TOLD} more, which --dry-run names"


def _counted(paths: list[GuestPath]) -> str:
    return "one" if len(paths) == 1 else str(len(paths))


def _about_bound(native: Native) -> str:
    toolset, bound = native.match.toolset, {tool.path for tool in _bindable(native)}
    left = [f"{each.tool.path} ({each.reason})" for each in native.match.left]
    left += [
        f"{use.tool.path} (its arguments decide)"
        for use in native.match.uses
        if use.tool.path not in bound
    ]
    proof = f"proven by corpus {toolset.corpus}" if toolset.corpus else "not proven"
    return (
        f"native tools are those of set {toolset.digest[:12]} ({toolset.provider}; {proof});"
        f" emulated: {', '.join(left) or 'none'}"
    )


def _is_wanted(left: Left, native: Native) -> bool:
    """Tell whether a tool would be used but for what its file in the tree has become."""
    level = left.tool.level
    return level == "exact" or (level == "fast" and native.match.choice == "fast")
