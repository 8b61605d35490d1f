"""How this host runs each architecture of a tree: by itself, in 32-bit mode, or emulated."""

from __future__ import annotations

from xbuild.binary.arch import arch_named, host_arch, runs_natively32
from xbuild.emulation.interpreters import verified_interpreter
from xbuild.errors import BinfmtError, InterpreterError
from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from xbuild.binary.arch import Arch
    from xbuild.emulation.interpreters import Interpreter
    from xbuild.emulation.registry import Entry
    from xbuild.plan.host import Host
    from xbuild.plan.request import Request
    from xbuild.record import HostPath
    from xbuild.tree.survey import Survey

    Way = Literal["native", "native32", "private", "host", "missing"]


class Emulation(Record):
    """One architecture of a tree and the way it runs.

    ``interpreter`` for ``private``, and for ``host`` where the ``entry`` lacks the flag F and so
    needs a file inside; ``problem`` where the architecture does not run.
    """

    arch: Arch
    way: Way
    interpreter: Interpreter | None = None
    entry: Entry | None = None
    problem: str = ""


class HostEntry(Record):
    """What of the host's registry runs programs of an architecture: nothing is done for it.

    ``interpreter`` is the path that was registered; with the flag F the kernel holds that open.
    """

    arch: str
    name: str
    interpreter: HostPath
    flags: str


def host_entries(emulations: tuple[Emulation, ...]) -> tuple[HostEntry, ...]:
    """Return which of the host's entries a run relies on."""
    return tuple(
        HostEntry(e.arch.name, e.entry.name, e.entry.interpreter, "".join(sorted(e.entry.flags)))
        for e in emulations
        if e.way == "host" and e.entry is not None
    )


def choose_emulation(
    survey: Survey, request: Request, host: Host, *, remember: bool
) -> tuple[Emulation, ...]:
    """Return a way for every architecture that the survey met, the leading one first.

    May run an interpreter, to verify it, if its file is not known from before; what is learnt is
    kept if ``remember``. Raises InterpreterError or BinfmtError when the leading architecture
    cannot run; others are ``missing`` then.
    """
    ways: list[Emulation] = []
    for name in survey.architectures:
        leads = not ways
        override = request.interpreter if leads else None
        arch = arch_named(name)
        try:
            ways.append(way_for(arch, request, host, override=override, remember=remember))
        except (InterpreterError, BinfmtError) as error:
            if leads:
                raise
            ways.append(Emulation(arch, "missing", problem=error.message))
    return tuple(ways)


def way_for(
    arch: Arch, request: Request, host: Host, *, override: HostPath | None, remember: bool
) -> Emulation:
    """Return how ``arch`` runs on this host. Raises InterpreterError, BinfmtError."""
    here = host_arch()
    if override is None:
        if arch == here:
            return Emulation(arch, "native")
        if arch == runs_natively32(here) and _runs_by_itself(arch):
            return Emulation(arch, "native32")
    if request.binfmt == "host" or (request.binfmt == "auto" and not host.has_private_binfmt):
        if override is not None:
            raise _not_by_host_entry(override, request, host)
        return _by_host_entry(arch, request, host)
    interpreter = verified_interpreter(arch, override=override, remember=remember)
    return Emulation(arch, "private", interpreter)


def _runs_by_itself(arch: Arch) -> bool:
    from xbuild.emulation.native import runs_by_itself  # only for 32-bit trees

    return runs_by_itself(arch)


def _not_by_host_entry(override: HostPath, request: Request, host: Host) -> BinfmtError:
    release = f"{host.kernel[0]}.{host.kernel[1]}"
    hint = f"as root, for all: xbuild binfmt register --interpreter {override} ARCH"
    if request.binfmt == "host":
        return BinfmtError(
            f"--interpreter {override} is for a registry of the container's own, and --binfmt host"
            " is not",
            f"leave one of them out; {hint}",
        )
    return BinfmtError(
        f"--interpreter {override} needs a registry of the container's own, which Linux {release}"
        " does not have",
        f"Linux 6.7 and later do; {hint}",
    )


def _by_host_entry(arch: Arch, request: Request, host: Host) -> Emulation:
    try:
        entry = _working_entry(arch)
    except BinfmtError as error:
        if request.binfmt != "auto":
            raise
        release = f"{host.kernel[0]}.{host.kernel[1]}"
        newer = f"or run a newer kernel: {release} has no private registries, 6.7 and later do"
        raise BinfmtError(error.message, f"{error.hint}\n{newer}") from error
    if "F" in entry.flags:
        return Emulation(arch, "host", entry=entry)
    # Without F the kernel looks for the path inside the container: a static one has to be there.
    try:
        interpreter = verified_interpreter(arch, override=entry.interpreter, remember=False)
    except InterpreterError:
        interpreter = verified_interpreter(arch, remember=False)
    return Emulation(arch, "host", interpreter, entry)


def _working_entry(arch: Arch) -> Entry:
    from xbuild.emulation.registry import (
        BINFMT_DIRECTORY,
        Conflicting,
        Missing,
        is_registry_enabled,
        judge,
        read_entries,
    )
    from xbuild.emulation.verification import Fails, verify_registration

    hint = f"as root: xbuild binfmt register {arch.common_name}"
    name = arch.common_name
    verdict = judge(arch, read_entries(), is_enabled=is_registry_enabled())
    if isinstance(verdict, Missing):
        raise BinfmtError(f"The host's binfmt_misc registry has no entry for {name}", hint)
    entry = verdict.entry
    if isinstance(verdict, Conflicting):
        if not entry.enabled:
            hint = f"as root: echo 1 >{BINFMT_DIRECTORY}/{entry.name}"
        raise BinfmtError(
            f"The host's binfmt_misc entry {entry.name} for {name} {verdict.reason}", hint
        )
    outcome = verify_registration(arch)
    if isinstance(outcome, Fails):
        raise BinfmtError(
            f"The host's binfmt_misc entry {entry.name} does not run {name} programs:"
            f" {outcome.reason}",
            hint,
        )
    return entry
