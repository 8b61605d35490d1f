"""Trials: run a program for a moment, to learn what it does rather than what it is called.

Scope: one short-lived process without input, its output bounded, its time limited, and an empty
environment. Judging the outcome is the callers'. Not ``subprocess``: importing that alone takes
longer than a trial, and ``xbuild run`` makes one the first time it meets an interpreter.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time

from xbuild.binary.write import tiny_program
from xbuild.emulation.rules import BINFMT_P_SUFFIX
from xbuild.record import HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.binary.arch import Arch

TRIAL_TIMEOUT_S = 10.0
TRIAL_TEXT = b"xbuild\n"
TRIAL_STATUS = 42  # neither success nor a common failure
OUTPUT_LIMIT = 65536  # bytes; a pipe's default capacity (pipe(7))
PROGRAM_PATH = "/proc/self/fd/3"  # where a trial finds the program it was given

MFD_EXEC = 0x10  # linux/memfd.h, since 6.3; refused with EINVAL before
_FIRST_FREE = 10
_PAUSE_S = 0.0005
_PAUSE_MOST_S = 0.02


class Outcome(Record):
    """How a trial ended: ``status`` as ``os.waitstatus_to_exitcode`` has it, None at time-out."""

    status: int | None
    output: bytes
    complaint: str

    @property
    def is_as_expected(self) -> bool:
        """True when the trial program itself ran: its exit status, and its text on the last line.

        qemu 10 for ppc64le says before, on standard output, that a file without a name has no path.
        """
        return self.status == TRIAL_STATUS and (
            self.output == TRIAL_TEXT or self.output.endswith(b"\n" + TRIAL_TEXT)
        )

    def describe(self) -> str:
        """Say in words what happened instead of what should have."""
        if self.status is None:
            return "it did not end in time"
        if self.status < 0:
            ended = f"it was killed by signal {-self.status}"
        else:
            ended = f"it exited with status {self.status}"
        return f"{ended}: {self.complaint}" if self.complaint else ended


def run_trial(
    argv: tuple[str, ...],
    *,
    executable: str | None = None,
    program: bytes | None = None,
    timeout_s: float = TRIAL_TIMEOUT_S,
) -> Outcome:
    """Run ``argv`` to its end and return what it wrote, at most 64 KiB.

    ``program``, if given, is a file's content that the process finds at PROGRAM_PATH. Raises
    OSError as execve(2) does; a process that does not end, or writes more, is killed.
    """
    held: list[int] = []
    try:
        out, out_end = (_hold(held, fd) for fd in os.pipe())
        err, err_end = (_hold(held, fd) for fd in os.pipe())
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out_end, 1),
            (os.POSIX_SPAWN_DUP2, err_end, 2),
        ]
        if program is not None:
            actions.append((os.POSIX_SPAWN_DUP2, _hold(held, _executable_file(program)), 3))
        environment = {"PATH": "/usr/bin:/bin"}  # no QEMU_* of the caller's
        pid = os.posix_spawn(
            executable or argv[0],
            argv,
            environment,
            file_actions=actions,
            setsigdef=(signal.SIGPIPE,),
        )
        status = _await(pid, timeout_s)
        return Outcome(status, _available(out), _first_line(_available(err)))
    finally:
        for fd in held:
            os.close(fd)


def try_interpreter(interpreter: HostPath, arch: Arch, *, cpu: str | None = None) -> Outcome:
    """Run a tiny program of ``arch`` through ``interpreter``, past the kernel's binfmt_misc.

    ``cpu`` is what it is to emulate. Raises UnknownArchitecture when there is no tiny program of
    ``arch``, OSError as execve does.
    """
    options = () if cpu is None else ("-cpu", cpu)
    argv = (argv0_for(interpreter, arch), *options, PROGRAM_PATH)
    return run_trial(argv, executable=interpreter, program=_trial_program(arch))


def argv0_for(interpreter: HostPath, arch: Arch) -> str:
    """Return the name under which an interpreter can be started by hand.

    Debian's ``*-binfmt-P`` take a program's argv[0] from their arguments, as the kernel's flag P
    has it, and refuse otherwise; the same file under qemu's own name does not.
    """
    return f"qemu-{arch.name}" if interpreter.endswith(BINFMT_P_SUFFIX) else interpreter


def try_kernel(arch: Arch) -> Outcome:
    """Execute a tiny program of ``arch`` as any program is executed, in the present namespaces.

    Raises UnknownArchitecture when there is none of ``arch``, OSError as execve(2) does: ENOEXEC
    when nothing runs such programs, ENOENT when what should is not there.
    """
    return run_trial((PROGRAM_PATH,), program=_trial_program(arch))


def _trial_program(arch: Arch) -> bytes:
    return tiny_program(arch, TRIAL_TEXT, status=TRIAL_STATUS)


def _hold(held: list[int], fd: int) -> int:
    """Move a descriptor out of the way of 0 to 3, whichever of these the caller has closed."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    os.close(fd)
    held.append(moved)
    return moved


def _executable_file(content: bytes) -> int:
    """Return a descriptor of a nameless executable file, in memory if the kernel allows it."""
    try:
        fd = _memory_file()
    except OSError:
        return _disk_file(content)  # sysctl vm.memfd_noexec=2
    with open(os.dup(fd), "wb") as file:
        file.write(content)
    return fd


def _memory_file() -> int:
    try:
        return os.memfd_create("xbuild-trial", os.MFD_CLOEXEC | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("xbuild-trial", os.MFD_CLOEXEC)


def _disk_file(content: bytes) -> int:
    fd = os.open("/var/tmp", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o700)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        # A file that someone may still write is not executed: ETXTBSY.
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def _await(pid: int, timeout_s: float) -> int | None:
    """Reap the child and return its exit code, None after having killed it at the deadline."""
    deadline = time.monotonic() + timeout_s
    pause = _PAUSE_S
    while True:
        reaped, status = os.waitpid(pid, os.WNOHANG)
        if reaped:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(pause)
        pause = min(pause * 1.5, _PAUSE_MOST_S)


def _available(fd: int) -> bytes:
    """Return what is in the pipe now; a grandchild may hold its other end open for ever."""
    os.set_blocking(fd, False)
    try:
        return os.read(fd, OUTPUT_LIMIT)
    except BlockingIOError:
        return b""


def _first_line(text: bytes) -> str:
    line = text.strip().split(b"\n", 1)[0].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in line)[:200]
