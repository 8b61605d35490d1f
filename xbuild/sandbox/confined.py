"""Run a program of the host's where there are the host's programs and the places it is given alone.

For programs that write what a stranger's data say, as tar(1) does: wherever a name or a link leads
them, nothing is there but an empty file system, programs that are read-only, and those places. Not
for programs of a tree: they get a container. Off the start path.
"""

from __future__ import annotations

import marshal
import os
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING

from xbuild.emulation.packages import package_command
from xbuild.errors import HostUnable
from xbuild.plan import steps
from xbuild.plan.privileges import CAPABILITIES, FilterCalls, LimitPrivileges
from xbuild.plan.restrictions import why_no_user_namespace
from xbuild.record import GuestPath, HostPath, Record
from xbuild.sandbox import _linux, mounts, signals
from xbuild.sandbox.as_root import become_root_of
from xbuild.sandbox.privileges import filter_calls, limit_privileges
from xbuild.sandbox.stage import Stage, directory, symlink

if TYPE_CHECKING:
    from typing import NoReturn, Self

    from xbuild.plan.steps import IdMap

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# Those beyond /usr are of hosts without merged /usr, of NixOS and of Guix.
_PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "gnu")
# What making files of any owner takes; sys_admin is for attributes as trusted.overlay.opaque.
_FILE_CAPABILITIES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "mknod", "setfcap"),
    *("sys_admin", "mac_admin"),
)
_FOR_FILES = LimitPrivileges(
    tuple(name for name in CAPABILITIES if name not in _FILE_CAPABILITIES), no_new_privs=True
)
_LINKER_CACHE = HostPath("/etc/ld.so.cache")
_ANSWER_LIMIT = 4096  # bytes
_SAID_LIMIT = 16384  # bytes of a program's messages that are kept, its last
_LAST_DESCRIPTOR = 2**32 - 1


class Place(Record):
    """A directory or file of the host's that is seen as ``inside``, which is absolute."""

    host: HostPath
    inside: GuestPath
    writable: bool = False


class Ended(Record):
    """How a program ended: its exit status or 128 + signal, and what it said last."""

    status: int
    said: str


class ConfinedProgram:
    """A running program, killed when the ``with`` ends before it.

    It runs with these ids as root of a user namespace, or as the caller where ``outer`` is None.
    Its standard input is ``stdin``, its standard output ``stdout``; both stay the caller's.
    """

    def __init__(
        self,
        argv: tuple[str, ...],
        places: tuple[Place, ...],
        outer: IdMap | None,
        *,
        purpose: str,
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> None:
        """Start it. Raises HostUnable: "Cannot ``purpose``: …"."""
        program = shutil.which(argv[0], path=_PATH)
        if program is None:
            raise HostUnable(
                f"Cannot {purpose}: {argv[0]} is not installed", package_command(argv[0])
            )
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        answers, answer = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            descriptors = (stdin, stdout, self._said.fileno())
            _become((program, *argv[1:]), places, outer, descriptors, answer, parent)
        os.close(answer)
        failure = os.read(answers, _ANSWER_LIMIT)
        os.close(answers)
        if failure:
            self.__exit__()
            raise _explain(purpose, outer, marshal.loads(failure))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
        self._said.close()

    def wait(self) -> Ended:
        """Wait for its end."""
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._pid = 0
        size = os.fstat(self._said.fileno()).st_size
        said = os.pread(self._said.fileno(), _SAID_LIMIT, max(0, size - _SAID_LIMIT))
        return Ended(128 - status if status < 0 else status, said.decode("utf-8", "replace"))


def _become(
    argv: tuple[str, ...],
    places: tuple[Place, ...],
    outer: IdMap | None,
    descriptors: tuple[int | None, ...],
    answer: int,
    parent: int,
) -> NoReturn:
    try:
        os.setsid()  # ^C is the caller's, who ends this
        if outer is not None:
            become_root_of(outer)
        # After the ids have changed, which clears it (prctl(2)).
        _linux.prctl(_linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        null = os.open("/dev/null", os.O_RDWR)
        _linux.unshare(_linux.CLONE_NEWNET | _linux.CLONE_NEWIPC)
        _enter_view(places)
        limit_privileges(_FOR_FILES)
        filter_calls(FilterCalls("refuse"))
        filter_calls(FilterCalls("no-mount"))
        sources = [null if fd is None else fd for fd in descriptors]
        # Away from the numbers that they are to have, on which others of them may be.
        sources = [os.dup(fd) if fd < len(sources) else fd for fd in sources]
        for number, fd in enumerate(sources):
            os.dup2(fd, number)
        _linux.close_range(len(sources), answer - 1)
        _linux.close_range(answer + 1, _LAST_DESCRIPTOR)
        signals.restore_defaults()
        os.execve(argv[0], argv, {"PATH": _PATH, "LC_ALL": "C", "HOME": "/"})
    except HostUnable as error:
        os.write(answer, marshal.dumps((0, error.message, error.hint)))
    except OSError as error:
        os.write(
            answer, marshal.dumps((error.errno or 0, error.strerror, str(error.filename or "")))
        )
    finally:
        os._exit(1)


def _enter_view(places: tuple[Place, ...]) -> None:
    stage = assemble_view()
    directory(stage, steps.Directory(GuestPath("/tmp"), 0o1777))
    for place in places:
        _show(stage, place)
    mounts.pivot(stage)


def assemble_view() -> Stage:
    """Enter a mount namespace, with a view that has the host's programs and nothing else.

    Not pivoted to. Raises OSError.
    """
    _linux.unshare(_linux.CLONE_NEWNS)
    _linux.set_propagation("/", _linux.MS_REC | _linux.MS_PRIVATE)
    stage = Stage({})
    stage.has_own_mounts = True
    mounts.become_view(stage, mounts.new_mount("tmpfs", (("mode", "755"),), mounts.BASIC))
    for name in _PROGRAMS:
        if os.path.islink(f"/{name}"):
            symlink(stage, steps.Symlink(GuestPath(f"/{name}"), os.readlink(f"/{name}")))
        elif os.path.isdir(f"/{name}"):
            _show(stage, Place(HostPath(f"/{name}"), GuestPath(f"/{name}")))
    if os.path.exists(_LINKER_CACHE):
        _show(stage, Place(_LINKER_CACHE, GuestPath(_LINKER_CACHE)))
    return stage


def _show(stage: Stage, place: Place) -> None:
    kind: steps.Create = "directory" if os.path.isdir(place.host) else "file"
    mounts.bind(
        stage,
        steps.Bind(place.host, place.inside, read_only=not place.writable, create=kind),
    )


def _explain(purpose: str, outer: IdMap | None, failure: tuple[int, str, str]) -> HostUnable:
    number, reason, subject = failure
    if not number:
        return HostUnable(f"Cannot {purpose}: {reason}", subject)
    hint = "xbuild doctor finds out what this host can do"
    if outer is not None and not subject:
        found = why_no_user_namespace(number)
        reason, hint = f"{reason}: {found.cause}", found.hint
    elif subject:
        reason = f"{reason} at {subject}"
    return HostUnable(f"Cannot {purpose}: {reason}", hint)
