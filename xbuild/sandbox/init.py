"""Process 1 of a container: it starts the command, reaps, forwards signals, ends with it.

qemu-user must never be process 1: a signal with a fatal default action leaves it hanging. After
the root was switched nothing here may import a module (see ``apply``).
"""

from __future__ import annotations

import os
import stat

from xbuild.sandbox import _linux
from xbuild.sandbox.channel import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from xbuild.plan.steps import Exec
    from xbuild.sandbox.assembly import Lines
    from xbuild.sandbox.channel import Phase
    from xbuild.sandbox.stage import Stage
else:
    import _signal as signal  # signal itself imports enum

FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_TYPED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_SIGNAL_BASE = 128
_NULL_DEVICE = os.makedev(1, 3)
_LAST_DESCRIPTOR = 2**32 - 1


def forward_signals_to(pid: int) -> None:
    """Pass on what would end this process to ``pid``."""

    def forward(number: int, _frame: object) -> None:
        _kill(pid, number)

    for number in FORWARDED:
        signal.signal(number, forward)


def _forward_as_terminal_to(child: int) -> None:
    """Pass on signals as a terminal would: what a key sends goes to the whole process group."""

    def forward(number: int, _frame: object) -> None:
        if number not in _TYPED or not _kill(-child, number):
            _kill(child, number)

    for number in FORWARDED:
        signal.signal(number, forward)


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def exit_status_of(wait_status: int) -> int:
    """Return the status a shell would show: the exit code, or 128 plus the signal's number."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else _SIGNAL_BASE - code


def wait_for(pid: int) -> int:
    """Wait for one child and return its exit status as a shell would show it."""
    return exit_status_of(os.waitpid(pid, 0)[1])


def run(command: Exec, stage: Stage, lines: Lines, index: int) -> NoReturn:
    """Start the command, then be its init until it ends. Never returns."""
    keep = {stage.binfmt, *lines.reports.descriptors()}
    terminal = lines.console.hand_over(command) if lines.console is not None else None
    child = os.fork()
    if child == 0:
        _start(command, lines, index, terminal)
    keep -= set(lines.reports.descriptors())
    _close_all_but(keep)
    _forward_as_terminal_to(child)
    _linux.prctl_name(b"xbuild-init")
    os._exit(_reap_until(child))


def _reap_until(child: int) -> int:
    while True:
        pid, wait_status = os.wait()
        if pid == child:
            return exit_status_of(wait_status)


def _close_all_but(keep: set[int]) -> None:
    first = 3
    for fd in sorted(fd for fd in keep if fd >= first):
        if fd > first:
            _linux.close_range(first, fd - 1)
        first = fd + 1
    _linux.close_range(first, _LAST_DESCRIPTOR)


def _start(command: Exec, lines: Lines, index: int, terminal: str | None) -> NoReturn:
    subject = ""
    phase: Phase = "step"
    try:
        _restore_signals()
        os.setsid()
        _arrange_descriptors(command, terminal)
        _become_user(command)
        os.umask(0o022)
        subject = command.directory
        os.chdir(command.directory)
        if command.personality is not None:
            _linux.personality(command.personality)
        phase = "exec"
        _close_all_but(set(lines.reports.descriptors()))
        _execute(command)
    except OSError as error:
        name = str(error.filename or subject)
        if phase == "exec" and error.errno == _linux.ENOENT and os.path.lexists(name):
            phase = "loader"
        lines.reports.send(Report(phase, index, error.errno or 0, name))
    os._exit(125)


def _restore_signals() -> None:
    for number in (*FORWARDED, *_IGNORED_BY_PYTHON):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _arrange_descriptors(command: Exec, terminal: str | None) -> None:
    if terminal is not None:
        fd = os.open(terminal, os.O_RDWR)  # the session's first: it becomes the controlling one
        os.fchown(fd, command.uid, -1)
        for number in command.terminal:
            os.dup2(fd, number)
        if fd > 2:
            os.close(fd)
    for number in range(3):
        status = os.fstat(number)
        # Not the host's node: chmod through /proc/self/fd would reach it.
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE:
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, number)
            os.close(null)


def _become_user(command: Exec) -> None:
    if command.groups is not None:
        os.setgroups(command.groups)
    if command.gid != 0:
        os.setresgid(command.gid, command.gid, command.gid)
    if command.uid != 0:
        os.setresuid(command.uid, command.uid, command.uid)


def _execute(command: Exec) -> NoReturn:
    """Search PATH by hand, as execvp(3) does; raises the OSError that explains most."""
    name = command.argv[0]
    environment = dict(command.environment)
    if "/" in name:
        candidates = [name]
    else:
        path = environment.get("PATH", "/bin:/usr/bin")
        candidates = [f"{directory or '.'}/{name}" for directory in path.split(":")]
    explaining: OSError | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, command.argv, environment)
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
