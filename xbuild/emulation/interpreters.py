"""Interpreters: find a static qemu-user on this host, and learn by running it that it serves.

Scope: files on the host. Finding reads headers only, for ``xbuild run`` does it at every start;
running comes with ``verify_interpreter``, whose findings are kept (``facts``).
"""

from __future__ import annotations

import errno
import os
import stat

from xbuild.binary.arch import Arch, arch_of, host_arch, runs_natively32
from xbuild.binary.elf import Program, read_program
from xbuild.emulation.facts import Facts, cached_facts, identify, remember_facts
from xbuild.emulation.rules import BINFMT_P_SUFFIX
from xbuild.errors import (
    DamagedElf,
    InterpreterError,
    InterpreterMissing,
    InterpreterUnsuitable,
    NotElf,
)
from xbuild.record import HostPath, Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "DEFAULT_DIRECTORIES",
    "Interpreter",
    "find_interpreter",
    "verified_interpreter",
    "verify_interpreter",
    "cached_facts",
]

# Where distributions put them; names are in _names_in.
DEFAULT_DIRECTORIES = (
    HostPath("/usr/local/bin"),
    HostPath("/usr/bin"),
    HostPath("/usr/libexec/qemu-binfmt"),  # Debian
    HostPath("/run/current-system/sw/bin"),  # NixOS
)


class Interpreter(Record):
    """A static emulator on the host; ``version`` is None as long as nothing has run it.

    ``source`` says how it was found, in words.
    """

    path: HostPath
    arch: Arch
    version: str | None
    source: str


def find_interpreter(
    arch: Arch,
    *,
    override: HostPath | None = None,
    directories: tuple[HostPath, ...] = DEFAULT_DIRECTORIES,
    search_path: str = "",
) -> Interpreter:
    """Find an interpreter for ``arch`` by name and header, or check the one in ``override``.

    ``search_path`` is a PATH whose absolute directories are looked through after
    ``directories``; where none of them has one, the cache may (``provisioned``). Raises
    InterpreterMissing, InterpreterUnsuitable.
    """
    return _with_facts(_find(arch, override, directories, search_path))


def verified_interpreter(
    arch: Arch,
    *,
    override: HostPath | None = None,
    directories: tuple[HostPath, ...] = DEFAULT_DIRECTORIES,
    search_path: str = "",
    remember: bool,
) -> Interpreter:
    """Find an interpreter and have it verified, now or by an earlier start.

    Runs it only if this very file is not known from before; what is learnt is kept if
    ``remember``. Raises InterpreterMissing, InterpreterUnsuitable.
    """
    found = _find(arch, override, directories, search_path)
    known = _with_facts(found)
    if known is not found:
        return known
    identity = identify(found.path)
    verified = verify_interpreter(found)
    if remember and identity is not None:
        remember_facts(identity, Facts(arch.name, verified.version))
    return verified


def verify_interpreter(interpreter: Interpreter) -> Interpreter:
    """Run ``INTERPRETER --version`` and a tiny program through it; return it with its version.

    Takes at most 20 s. Raises InterpreterUnsuitable when it emulates something else or nothing,
    InterpreterMissing when it has vanished.
    """
    from xbuild.emulation.trial import try_interpreter  # off the start path, once known

    path, arch = interpreter.path, interpreter.arch
    try:
        emulated, version = _ask_version(interpreter)
        outcome = try_interpreter(path, arch)
    except OSError as error:
        raise _not_started(path, arch, error) from error
    if outcome.is_as_expected:
        return replace(interpreter, version=version)
    if emulated is not None and emulated != arch.name:
        raise _unsuitable(path, arch, f"it emulates {emulated}")
    reason = f"it does not run {arch.common_name} programs: {outcome.describe()}"
    raise _unsuitable(path, arch, reason)


def _find(
    arch: Arch,
    override: HostPath | None,
    directories: tuple[HostPath, ...],
    search_path: str,
) -> Interpreter:
    if override is not None:
        path = HostPath(os.path.abspath(override))
        _check_header(path, arch)
        return Interpreter(path, arch, None, "named by --interpreter")
    if not arch.is_emulated:
        raise InterpreterMissing(
            f"qemu-user emulates no {arch.common_name}", "name another emulator: --interpreter PATH"
        )
    rejected: InterpreterError | None = None
    on_path = tuple(HostPath(d) for d in search_path.split(":") if d.startswith("/"))
    for path in _candidates(arch, directories + on_path):
        try:
            _check_header(path, arch)
        except InterpreterError as error:
            rejected = rejected or error
            continue
        return Interpreter(path, arch, None, f"found in {os.path.dirname(path)}")
    fetched = _provisioned(arch)
    if fetched is not None:
        return fetched
    raise rejected or _missing(arch)


def _provisioned(arch: Arch) -> Interpreter | None:
    from xbuild.emulation.provisioned import newest_provisioned  # where the host has none

    path = newest_provisioned(arch)
    if path is None:
        return None
    _check_header(path, arch)
    return Interpreter(path, arch, None, "fetched by xbuild setup")


def _with_facts(interpreter: Interpreter) -> Interpreter:
    """Return what an earlier start learnt of it; the same object where that is nothing."""
    facts = cached_facts(interpreter.path)
    if facts is None or facts.arch != interpreter.arch.name:
        return interpreter
    return replace(interpreter, version=facts.version)


def _candidates(arch: Arch, directories: tuple[HostPath, ...]) -> Iterator[HostPath]:
    for directory in directories:
        for name in _names_in(directory, arch):
            path = f"{directory}/{name}"
            if not os.path.lexists(path):
                continue
            # Debian's *-binfmt-P are links; under its own name qemu understands more kernels.
            is_link = name.endswith(BINFMT_P_SUFFIX)
            yield HostPath(os.path.realpath(path) if is_link else path)


def _names_in(directory: HostPath, arch: Arch) -> tuple[str, ...]:
    if os.path.basename(directory) == "qemu-binfmt":
        return (f"{arch.name}{BINFMT_P_SUFFIX}", f"qemu-{arch.name}")
    # -static: Debian up to 12, Ubuntu, Fedora, Arch. The plain name: Debian from 13 on, Alpine,
    # Gentoo, openSUSE; elsewhere it is dynamic, and its header says so.
    return (f"qemu-{arch.name}-static", f"qemu-{arch.name}")


def _check_header(path: HostPath, arch: Arch) -> None:
    """Raise unless the file is a static program that this host executes."""
    program = _read_header(path, arch)
    own = arch_of(program.ident)
    host = host_arch()
    native32 = runs_natively32(host)
    if own is None or own not in (host, native32) or not program.ident.is_program:
        of = own.name if own is not None else "an unknown machine"
        raise _unsuitable(path, arch, f"it is for {of}, and this host is {host.name}")
    if program.is_dynamic:
        reason = "it is dynamically linked, and its libraries are not in the tree"
        raise _unsuitable(path, arch, reason)


def _read_header(path: HostPath, arch: Arch) -> Program:
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise _unsuitable(path, arch, f"it is {what}")
        if not os.access(path, os.X_OK):
            raise _unsuitable(path, arch, "it is not executable")
        # Nonblocking, should a FIFO have taken the file's place just now.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _gone(path, arch) from error
    except OSError as error:
        raise _unsuitable(path, arch, f"it cannot be read: {error.strerror}") from error
    with open(fd, "rb", buffering=0) as file:
        try:
            return read_program(file)
        except DamagedElf as error:
            raise _unsuitable(path, arch, error.message) from error
        except NotElf as error:
            what = "a script" if os.pread(fd, 2, 0) == b"#!" else "not an ELF program"
            raise _unsuitable(path, arch, f"it is {what}") from error


def _ask_version(interpreter: Interpreter) -> tuple[str | None, str | None]:
    """Return what qemu says that it emulates, and its version; None where it is no qemu."""
    from xbuild.emulation.trial import argv0_for, run_trial

    path = interpreter.path
    argv = (argv0_for(path, interpreter.arch), "--version")
    words = run_trial(argv, executable=path).output.split(b"\n", 1)[0].split()
    if len(words) < 3 or not words[0].startswith(b"qemu-") or words[1] != b"version":
        return None, None
    return words[0][5:].decode("ascii", "replace"), words[2].decode("ascii", "replace")


def _missing(arch: Arch) -> InterpreterMissing:
    from xbuild.emulation.packages import install_hint

    return InterpreterMissing(
        f"No interpreter for {arch.common_name} programs: no qemu-{arch.name} on this host",
        install_hint(arch),
    )


def _gone(path: HostPath, arch: Arch) -> InterpreterMissing:
    from xbuild.emulation.packages import install_hint

    return InterpreterMissing(
        f"Cannot run {arch.common_name} programs through {path}: there is no such file",
        install_hint(arch),
    )


def _unsuitable(path: HostPath, arch: Arch, reason: str) -> InterpreterUnsuitable:
    from xbuild.emulation.packages import install_hint

    return InterpreterUnsuitable(
        f"Cannot run {arch.common_name} programs through {path}: {reason}", install_hint(arch)
    )


def _not_started(path: HostPath, arch: Arch, error: OSError) -> InterpreterError:
    if error.errno == errno.ENOENT:
        return _gone(path, arch)
    return _unsuitable(path, arch, f"it does not start: {error.strerror}")
