"""What a target is, and how this host runs it: found out for ``xbuild inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from xbuild.binary.abi import Abi, read_abi
from xbuild.binary.arch import Arch, arch_named, host_arch, runs_natively32
from xbuild.binary.elf import read_program
from xbuild.binary.psabi import Evidence, judge
from xbuild.emulation.interpreters import Interpreter, verified_interpreter
from xbuild.emulation.native import runs_by_itself
from xbuild.errors import DamagedElf, InterpreterError, NotElf, TargetError
from xbuild.record import HostPath
from xbuild.tree.chost import chost_for, declared_chost
from xbuild.tree.survey import Survey
from xbuild.tree.target import open_target, survey_target

if TYPE_CHECKING:
    from xbuild.record import GuestPath
    from xbuild.tree.resolve import TreeReader


@dataclass(frozen=True, slots=True)
class Way:
    """How this host runs an architecture's programs; ``reason`` and ``hint`` where it does not."""

    kind: Literal["native", "native32", "emulated", "none"]
    interpreter: Interpreter | None = None
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that ``inspect`` says. ``ways`` has each architecture met, the leading one first.

    ``abi`` is the leading program's; ``is_abi_whole`` is False where only its header was usable.
    """

    survey: Survey
    arch: Arch
    abi: Abi
    is_abi_whole: bool
    chost: str
    ways: tuple[tuple[Arch, Way], ...]

    @property
    def debian(self) -> str | None:
        """Debian's name of the leading architecture and its ABI, None where dpkg has none."""
        return self.abi.debian


def inspect_target(target: HostPath, *, full: bool = False) -> Inspection:
    """Look at ``target`` and at what this host has for it; runs interpreters to know them.

    Raises as ``xbuild.tree.target.survey`` does.
    """
    with open_target(target) as reader:
        return inspect_tree(reader, survey_target(reader, full=full))


def inspect_tree(reader: TreeReader, survey: Survey) -> Inspection:
    """Add to a survey its programs' ABI and what this host has. Raises TargetError."""
    assert survey.arch is not None  # a survey without one raises
    assert survey.leading_program is not None
    abi, is_whole = read_abi_of(reader, survey.leading_program, survey.arch)
    declared = declared_chost(reader, survey.distribution)
    arches = tuple(arch_named(name) for name in survey.architectures)
    return Inspection(
        survey=survey,
        arch=survey.arch,
        abi=abi,
        is_abi_whole=is_whole,
        chost=declared or chost_for(abi.chost or survey.arch.chost, survey.libc),
        ways=tuple((arch, way_to_run(arch)) for arch in arches),
    )


def read_abi_of(reader: TreeReader, path: GuestPath, arch: Arch) -> tuple[Abi, bool]:
    """Return a program's ABI, and whether more than its headers could be read for it.

    Of an archive's programs often only the beginning is there; attributes stand at the end.
    """
    with reader.open(path) as file:
        try:
            return read_abi(file), True
        except (DamagedElf, OSError):
            pass
        try:
            return judge(read_program(file), Evidence()), False
        except (DamagedElf, NotElf, OSError) as error:
            raise TargetError(
                f"Cannot read the {arch.common_name} program {path}: {error}",
                "it is damaged: install its package again, by which the tree came to it",
            ) from error


def way_to_run(arch: Arch) -> Way:
    """Decide how this host runs ``arch``, found by running where running is needed to know."""
    here = host_arch()
    if arch == here:
        return Way("native")
    if arch == runs_natively32(here) and runs_by_itself(arch):
        return Way("native32")
    try:
        return Way("emulated", verified_interpreter(arch, remember=False))
    except InterpreterError as error:
        return Way("none", reason=error.message, hint=error.hint)
