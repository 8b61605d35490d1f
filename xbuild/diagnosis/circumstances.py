"""What a run was, as far as it matters to why it failed: read from its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbuild.binary.arch import arch_named
from xbuild.diagnosis.failure import Failure, last_lines
from xbuild.emulation.facts import cached_facts
from xbuild.emulation.interpreters import verified_interpreter
from xbuild.emulation.trial import try_interpreter
from xbuild.errors import InterpreterError, UnknownArchitecture
from xbuild.plan.networks import AttachUserNetwork, AttachVeth
from xbuild.plan.privileges import FilterCalls, LimitPrivileges
from xbuild.plan.steps import (
    EnterNamespaces,
    LoopbackUp,
    MountOverlay,
    MountTree,
    Plan,
    Register,
    Scaffold,
    Tmpfs,
)

QEMU_REFUSES = 1  # qemu's own exit status where it does not begin

if TYPE_CHECKING:
    from xbuild.binary.arch import Arch
    from xbuild.record import HostPath


def failure_of(plan: Plan, status: int, output: bytes) -> Failure:
    """Return how the run of ``plan`` ended, with ``output`` the last that is known of it."""
    arch, interpreter = _emulated_by(plan)
    lines = last_lines(output)
    cpu = dict(plan.command.environment).get("QEMU_CPU")
    if not lines and status == QEMU_REFUSES and cpu and arch is not None and interpreter:
        lines = _words_on_processor(arch, interpreter, cpu)
    return Failure(
        status,
        lines,
        arch,
        None if arch is None or interpreter is None else _version_of(arch, interpreter),
        frozenset(_traits(plan, bits=arch.bits if arch is not None else 64)),
        tuple(step.target for step in plan.steps if isinstance(step, Tmpfs)),
        plan.target,
        interpreter,
    )


def _emulated_by(plan: Plan) -> tuple[Arch | None, HostPath | None]:
    """Return what the leading programs were emulated as, and by which file; None for not."""
    register = next((step for step in plan.steps if isinstance(step, Register)), None)
    if register is not None:
        return arch_named(register.arch), register.host_interpreter
    for entry in plan.host_entries:
        return arch_named(entry.arch), entry.interpreter
    return None, None


def _words_on_processor(arch: Arch, interpreter: HostPath, cpu: str) -> tuple[str, ...]:
    """Return what an interpreter says when it is to emulate ``cpu``, and cannot."""
    try:
        outcome = try_interpreter(interpreter, arch, cpu=cpu)
    except (OSError, UnknownArchitecture):
        return ()
    return (outcome.complaint,) if outcome.complaint and not outcome.is_as_expected else ()


def _version_of(arch: Arch, interpreter: HostPath) -> str | None:
    """Return an interpreter's version; None where the file is gone, or says none."""
    facts = cached_facts(interpreter)
    if facts is not None:
        return facts.version
    try:
        return verified_interpreter(arch, override=interpreter, remember=True).version
    except InterpreterError:
        return None


def _traits(plan: Plan, *, bits: int) -> set[str]:
    steps = plan.steps
    has_network = any(isinstance(step, AttachUserNetwork | AttachVeth) for step in steps)
    of_step = {
        "emulated": _emulated_by(plan) != (None, None),
        "32-bit": bits == 32 or plan.command.personality is not None,
        "ephemeral": any(isinstance(step, MountOverlay) and step.target == "/" for step in steps),
        "scaffold": any(isinstance(step, Scaffold) for step in steps),
        "read-only": any(isinstance(step, MountTree) and step.read_only for step in steps),
        "seccomp": any(isinstance(s, FilterCalls) and s.filter == "refuse" for s in steps),
        "no-setuid": any(isinstance(s, LimitPrivileges) and s.no_new_privs for s in steps),
        "one-id": _has_one_id(plan),
        "network-none": any(isinstance(s, LoopbackUp) for s in steps) and not has_network,
    }
    return {name for name, holds in of_step.items() if holds}


def _has_one_id(plan: Plan) -> bool:
    maps = [s.id_map for s in plan.steps if isinstance(s, EnterNamespaces) and s.id_map is not None]
    return any(sum(span.count for span in each.uids) == 1 for each in maps)
