"""Starting a command inside a container: descriptors, user, search in PATH, exec.

Used by process 1 after the root was switched, when nothing can be imported any more (see
``apply``), for the command of the run and for those that join it later.
"""

from __future__ import annotations

import os
import stat

from xbuild.binary.elf import ELFMAG, read_program
from xbuild.errors import EXIT_FAILED, DamagedElf
from xbuild.sandbox import _linux, signals
from xbuild.sandbox.channel import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Protocol, TypeVar

    from xbuild.plan.steps import Exec

    _T = TypeVar("_T")

    class Reporting(Protocol):
        """Who is told why a command could not be started."""

        def send(self, report: Report) -> None:
            """Say so."""

        def descriptors(self) -> tuple[int, ...]:
            """Return what has to stay open for that."""


_MEMORY_DEVICES = {
    os.makedev(1, minor): f"/dev/{name}"
    for minor, name in ((3, "null"), (5, "zero"), (7, "full"), (8, "random"), (9, "urandom"))
}
_LAST_DESCRIPTOR = 2**32 - 1
_AS_THEY_ARE = (-1, -1)  # descriptors 1 and 2 stay the caller's
_SCRIPTS_IN_A_ROW = 6  # fs/exec.c: exec_binprm allows five and the program
_SCRIPT_LINE_BYTES = 256  # linux/binfmts.h: BINPRM_BUF_SIZE


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor above 2 that is not in ``keep``."""
    first = 3
    for fd in sorted(fd for fd in keep if fd >= first):
        if fd > first:
            _linux.close_range(first, fd - 1)
        first = fd + 1
    _linux.close_range(first, _LAST_DESCRIPTOR)


def spawn(
    command: Exec, reports: Reporting, index: int, outputs: tuple[int, int] = _AS_THEY_ARE
) -> int:
    """Start a command that shares process 1's user without copying its memory (vfork(2))."""
    try:
        _arrange_descriptors(command, None, outputs)
        _prepare(command)
    except OSError as error:
        _give_up(reports, Report("step", index, error.errno or 0, str(error.filename or "")))

    def start(path: str, environment: dict[str, str]) -> int:
        return os.posix_spawn(
            path,
            command.argv,
            environment,
            setsid=True,
            setsigmask=(),
            setsigdef=signals.RESETTABLE,
        )

    try:
        return _first_found(command, start)
    except OSError as error:
        _give_up(reports, _exec_report(index, error))


def become(
    command: Exec,
    reports: Reporting,
    index: int,
    terminal: str | None,
    outputs: tuple[int, int] = _AS_THEY_ARE,
) -> NoReturn:
    """Become the command, in a child of process 1: as another user, or on a terminal."""
    try:
        signals.restore_defaults()
        os.setsid()
        _arrange_descriptors(command, terminal, outputs)
        _become_user(command)
        _prepare(command)
    except OSError as error:
        _give_up(reports, Report("step", index, error.errno or 0, str(error.filename or "")))
    close_all_but(set(reports.descriptors()))
    try:
        _first_found(command, lambda path, env: os.execve(path, command.argv, env))
    except OSError as error:
        _give_up(reports, _exec_report(index, error))


def _prepare(command: Exec) -> None:
    os.umask(0o022)
    _enter_directory(command)
    if command.personality is not None:
        _linux.personality(command.personality)


def _enter_directory(command: Exec) -> None:
    try:
        os.chdir(command.directory)
    except PermissionError:
        # As login(1) does: the home of another user's tree may have mode 0700.
        if command.fallback is None:
            raise
        os.chdir(command.fallback)


def _exec_report(index: int, error: OSError) -> Report:
    name = str(error.filename or "")
    is_there = error.errno == _linux.ENOENT and os.path.exists(name)
    return Report("loader" if is_there else "exec", index, error.errno or 0, name)


def _give_up(reports: Reporting, report: Report) -> NoReturn:
    reports.send(report)
    os._exit(EXIT_FAILED)


def _arrange_descriptors(command: Exec, terminal: str | None, outputs: tuple[int, int]) -> None:
    if terminal is not None:
        # The session's first becomes the controlling one; an init leaves it to who logs in.
        flags = os.O_RDWR if command.init is None else os.O_RDWR | os.O_NOCTTY
        fd = os.open(terminal, flags)
        os.fchown(fd, command.uid, -1)
        for number in command.terminal:
            os.dup2(fd, number)
        if fd > 2:
            os.close(fd)
    for number, fd in enumerate(outputs, 1):
        if fd >= 0:
            os.dup2(fd, number)
    if 0 in command.piped:
        os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
    for number in range(3):
        status = os.fstat(number)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev in _MEMORY_DEVICES:
            # Not the host's node: chmod through /proc/self/fd would reach it.
            own = os.open(_MEMORY_DEVICES[status.st_rdev], os.O_RDWR)
            os.dup2(own, number)
            os.close(own)


def _become_user(command: Exec) -> None:
    if command.groups is not None:
        os.setgroups(command.groups)
    if command.gid != 0:
        os.setresgid(command.gid, command.gid, command.gid)
    if command.uid != 0:
        os.setresuid(command.uid, command.uid, command.uid)


def _first_found(command: Exec, start: Callable[[str, dict[str, str]], _T]) -> _T:
    """Search PATH by hand, as execvp(3) does; raises the OSError that explains most."""
    name = command.argv[0]
    environment = dict(command.environment)
    if "/" in name or not name:
        candidates = [name] if name else []
    else:
        path = environment.get("PATH", "/bin:/usr/bin")
        candidates = [f"{directory or '.'}/{name}" for directory in path.split(":")]
    explaining: OSError | None = None
    for candidate in candidates:
        try:
            _check_program(candidate)
            return start(candidate, environment)
        except (FileNotFoundError, NotADirectoryError) as error:
            if explaining is None and os.path.lexists(candidate):
                explaining = error
        except OSError as error:
            explaining = error
            if not isinstance(error, PermissionError):
                break
    if explaining is not None:
        raise explaining
    raise FileNotFoundError(_linux.ENOENT, os.strerror(_linux.ENOENT), name)


def _check_program(path: str) -> None:
    """Refuse a program, or the interpreter of a script, that must not or cannot be started.

    Behind a magic link of /proc (ELOOP): /proc/self/exe is xbuild's own Python until exec. Started
    with libraries of the tree's, it would leave the host's file in the hands of a guest that may
    have its owner's id (CVE-2019-5736). Cut off (ENOEXEC): its header will do for the kernel, and
    the emulator's own words and exit status would be all that a person hears.
    """
    for depth in range(_SCRIPTS_IN_A_ROW):
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        resolve = _linux.RESOLVE_NO_MAGICLINKS
        try:
            fd = _linux.openat2(_linux.AT_FDCWD, path, flags=flags, resolve=resolve)
        except OSError as error:
            if depth == 0 and isinstance(error, FileNotFoundError | NotADirectoryError):
                raise
            if error.errno == _linux.ELOOP:
                raise
            return  # exec knows better: a program of mode 0711 starts
        try:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            line = os.read(fd, _SCRIPT_LINE_BYTES) if is_file else b""
            if line.startswith(ELFMAG) and _is_cut_off(fd):
                raise OSError(_linux.ENOEXEC, os.strerror(_linux.ENOEXEC), path)
        finally:
            os.close(fd)
        if not line.startswith(b"#!"):
            return
        path = os.fsdecode(_interpreter_of(line))


def _is_cut_off(fd: int) -> bool:
    with open(fd, "rb", buffering=0, closefd=False) as file:
        try:
            return read_program(file).end_bytes > os.fstat(fd).st_size
        except DamagedElf:
            return True


def _interpreter_of(line: bytes) -> bytes:
    """Return the path in the first line of a script, as fs/binfmt_script.c finds it."""
    path = line[2:].split(b"\n")[0].lstrip(b" \t")
    for end in (b" ", b"\t", b"\0"):
        path = path.split(end)[0]
    return path
