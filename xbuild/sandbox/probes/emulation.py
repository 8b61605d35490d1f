"""Interpreters, a private binfmt_misc registry, and the host's entries: each run to be believed."""

from __future__ import annotations

import errno
import functools
import os

from xbuild.binary.arch import ARCHES, host_arch, runs_natively32
from xbuild.binary.write import has_tiny_program, tiny_program
from xbuild.emulation.faults import faults_of
from xbuild.emulation.interpreters import find_interpreter, verify_interpreter
from xbuild.emulation.packages import install_hint
from xbuild.emulation.registry import BINFMT_DIRECTORY
from xbuild.emulation.rules import derive_rule
from xbuild.emulation.trial import MFD_EXEC, TRIAL_STATUS, TRIAL_TEXT, try_kernel
from xbuild.emulation.verification import Fails, Works, verify_entries
from xbuild.errors import BinfmtError, HostUnable, InterpreterError, InterpreterMissing
from xbuild.plan.make import PRIVATE_FLAGS
from xbuild.plan.restrictions import why_no_private_binfmt
from xbuild.record import HostPath, Record
from xbuild.sandbox import _linux
from xbuild.sandbox.mounts import new_mount
from xbuild.sandbox.probes.finding import (
    Circumstances,
    Finding,
    enter_user_namespace,
    find_out,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.binary.arch import Arch
    from xbuild.emulation.faults import Fault
    from xbuild.emulation.interpreters import Interpreter
    from xbuild.emulation.verification import Finding as EntryFinding

_NAMED_AT_MOST = 4


class Emulator(Record):
    """An architecture's interpreter, tried; ``problem`` where there is none that serves."""

    arch: Arch
    interpreter: Interpreter | None
    problem: str = ""
    is_absent: bool = False


@functools.cache
def survey_interpreters() -> tuple[Emulator, ...]:
    """Find and run an interpreter for every architecture that this host does not run itself.

    Once in a process: that takes seconds.
    """
    return tuple(_try(arch) for arch in _foreign())


def _foreign() -> tuple[Arch, ...]:
    native = (host_arch(), runs_natively32(host_arch()))
    return tuple(arch for arch in ARCHES if arch.is_emulated and arch not in native)


def _try(arch: Arch) -> Emulator:
    try:
        return Emulator(arch, verify_interpreter(find_interpreter(arch)))
    except InterpreterMissing as error:
        return Emulator(arch, None, error.message, is_absent=True)
    except InterpreterError as error:
        return Emulator(arch, None, error.message)


def probe_interpreters(_circumstances: Circumstances) -> Finding:
    """Run every interpreter there is, for its version and with a program of its architecture."""
    emulators = survey_interpreters()
    by_version: dict[str, list[str]] = {}
    for emulator in emulators:
        if emulator.interpreter is not None:
            version = emulator.interpreter.version or "of unknown version"
            by_version.setdefault(version, []).append(emulator.arch.common_name)
    words = [f"qemu {version}: {', '.join(names)}" for version, names in by_version.items()]
    absent = [emulator.arch.common_name for emulator in emulators if emulator.is_absent]
    if absent and by_version:
        words.append(f"none for {', '.join(absent)}")
    words += [e.problem for e in emulators if e.problem and not e.is_absent]
    if not by_version:
        return Finding("qemu", "missing", "; ".join(words) or "none found", install_hint(None))
    return Finding("qemu", "ok", "; ".join(words))


def probe_faults(_circumstances: Circumstances) -> Finding:
    """Look each interpreter's version up in the list of those with known faults."""
    affected: dict[Fault, list[str]] = {}
    versions: dict[Fault, str] = {}
    for emulator in survey_interpreters():
        found = emulator.interpreter
        for fault in faults_of(emulator.arch, found.version if found else None):
            affected.setdefault(fault, []).append(emulator.arch.common_name)
            versions[fault] = found.version or "" if found else ""
    if not affected:
        return Finding("qemu faults", "ok", "none known of these versions")
    words = [
        f"{versions[fault]} ({_all_or_named(names)}): {fault.in_words()}: {fault.issue}"
        for fault, names in affected.items()
    ]
    fix = "where that is met: xbuild setup --version VERSION gets another one beside it"
    return Finding("qemu faults", "faulty", "; ".join(words), fix)


def _all_or_named(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMED_AT_MOST else f"{len(names)} architectures"


def probe_private_binfmt(_circumstances: Circumstances) -> Finding:
    """Mount a registry of a user namespace's own and run a foreign program through it."""
    arch, interpreter = _any_interpreter()

    def act() -> str:
        enter_user_namespace(_linux.CLONE_NEWNS)
        registry = new_mount("binfmt_misc", (), 0)
        path = interpreter.path if interpreter else _stand_in()
        rule = derive_rule(arch, interpreter=path, flags=PRIVATE_FLAGS, name="xbuild-doctor")
        fd = os.open("register", os.O_WRONLY | os.O_CLOEXEC, dir_fd=registry)
        os.write(fd, rule.line())
        os.close(fd)
        outcome = try_kernel(arch)
        if not outcome.is_as_expected:
            raise HostUnable(
                f"a program for {arch.common_name} ran wrongly: {outcome.describe()}",
                "xbuild setup gets another version of qemu",
            )
        by = path if interpreter else "a stand-in, as there is no qemu"
        return f"a program for {arch.common_name} ran by {by}"

    return find_out("private binfmt", act, why_no_private_binfmt)


def _any_interpreter() -> tuple[Arch, Interpreter | None]:
    arches = [arch for arch in _foreign() if has_tiny_program(arch)]
    for arch in arches:
        try:
            return arch, find_interpreter(arch)
        except InterpreterError:
            continue
    return arches[0], None


def _stand_in() -> HostPath:
    """Return the path of a program of the host's that does what the trial program would do."""
    content = tiny_program(host_arch(), TRIAL_TEXT, status=TRIAL_STATUS)
    try:
        fd = os.memfd_create("xbuild-doctor", MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create("xbuild-doctor", 0)
    os.write(fd, content)
    readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    os.close(fd)  # a file that someone may still write is not executed: ETXTBSY
    return HostPath(f"/proc/self/fd/{readable}")


def probe_host_binfmt(circumstances: Circumstances) -> Finding:
    """Run a program through each of the host's entries."""
    check = "host binfmt"
    spare = circumstances.host.has_private_binfmt
    try:
        findings = verify_entries()
    except BinfmtError as error:
        if spare:
            return Finding(check, "n/a", f"{error.message}; containers have their own registries")
        return Finding(check, "missing", error.message, error.hint)
    failing = [f for f in findings if isinstance(f.verification, Fails)]
    words = [_described(f) for f in findings]
    if not words:
        words = [f"{BINFMT_DIRECTORY} has no entries"]
    if failing:
        return Finding(check, "missing", "; ".join(words), _fix_of(failing))
    if any(isinstance(f.verification, Works) for f in findings):
        return Finding(check, "ok", "; ".join(words))
    if spare:
        return Finding(check, "n/a", f"{'; '.join(words)}; containers have their own registries")
    return Finding(check, "missing", "; ".join(words), "as root: xbuild binfmt register ARCH")


def _described(found: EntryFinding) -> str:
    entry, arch = found.entry, found.arch
    if arch is None:
        return f"{entry.name} (for no architecture)"
    match found.verification:
        case Works():
            return f"{entry.name} runs {arch.common_name}"
        case Fails(reason):
            return f"{entry.name} does not run {arch.common_name}: {reason}"
        case _:
            return f"{entry.name} ({arch.common_name}, untested)"


def _fix_of(failing: list[EntryFinding]) -> str:
    names = " ".join(dict.fromkeys(f.arch.common_name for f in failing if f.arch is not None))
    return f"as root: xbuild binfmt register {names}; xbuild binfmt list shows the entries"
