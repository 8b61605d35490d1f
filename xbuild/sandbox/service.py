"""What process 1 does for those who join a running container: it starts their commands.

A command that joins is a child of process 1, and so has by inheritance everything that the run's
own has: namespaces, registry, limits, filters. Requests come by a socket whose file only the
container's owner can reach, on the host; a guest that was shown it all the same is turned away,
since its processes have a number in the container's PID namespace. After the root was switched
nothing here may import a module (see ``apply``).

One connection is one command. Messages are marshalled tuples: ``("terminal",)`` is answered by
``("terminal", PATH)`` with the controlling side of a new pseudo-terminal; ``("start", TERMINAL)``
comes with a file of the fields of ``joining.Joining``, the sending end of a Reports pipe and
descriptors 0, 1 and 2; ``("signal", NUMBER)`` may follow. ``("failed", ERRNO)`` or
``("status", NUMBER)`` ends it. If the connection is lost, so is the command's process group.
``("plan",)`` comes with a file, to which the container's plan is written, and is answered by
``("plan",)``.
"""

from __future__ import annotations

import marshal
import os
from _struct import pack

from xbuild.record import Record, replace
from xbuild.sandbox import _linux, _unix, signals
from xbuild.sandbox.channel import Report
from xbuild.sandbox.command import become

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any, NoReturn

    from xbuild.plan.steps import Plan
else:
    import _signal as signal  # signal itself imports enum

# asm-generic/ioctls.h
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431

_EXPECTED = 5  # a file of fields, a pipe for reports, descriptors 0, 1 and 2
_REQUEST_LIMIT = 1 << 24  # bytes; the kernel's own limit for arguments and environment is less


class _Guest:
    """One connection: the command's pid once it runs, the terminal's side inside until then."""

    def __init__(self) -> None:
        self.pid = 0
        self.inside = -1


class _ReportPipe:
    """The sending end of a Reports pipe that came with a request."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, report: Report) -> None:
        os.write(self._fd, marshal.dumps(tuple(getattr(report, n) for n in report.__match_args__)))

    def descriptors(self) -> tuple[int, ...]:
        return (self._fd,)


class Service:
    """The commands that joined, by the connection of each. ``control`` is -1 where nobody can."""

    def __init__(self, control: int, plan: Plan) -> None:
        self._control = control
        self._plan = plan
        self._guests: dict[int, _Guest] = {}

    def begin(self) -> None:
        """Be told of requests by SIGIO from now on, and see to those that wait already."""
        if self._control >= 0:
            _unix.signal_when_ready(self._control)
            self.look()

    def look(self) -> None:
        """Answer whatever has come."""
        self._accept()
        for connection in tuple(self._guests):
            try:
                while self._take(connection):
                    pass
            except BlockingIOError:
                continue
            except OSError:
                self._drop(connection)

    def command_ended(self, pid: int, status: int) -> None:
        """Tell whoever asked for the process ``pid``, if it is one of theirs, how it ended."""
        for connection, guest in tuple(self._guests.items()):
            if guest.pid == pid:
                guest.pid = 0
                self._answer(connection, ("status", status))
                self._drop(connection)

    def _accept(self) -> None:
        try:
            while self._control >= 0:
                connection = _unix.accept(self._control)
                if _unix.peer_pid(connection) != 0:  # a process of this very container
                    os.close(connection)
                    continue
                _unix.signal_when_ready(connection)
                self._guests[connection] = _Guest()
        except OSError:
            return  # nobody waits any more, or gave up, or descriptors are used up

    def _take(self, connection: int) -> bool:
        """Take the next message; False once the connection is gone."""
        guest = self._guests[connection]
        content, descriptors = _unix.receive(connection)
        try:
            match marshal.loads(content) if content else ():
                case ("terminal",):
                    self._open_terminal(connection, guest)
                case ("start", str(terminal)) if len(descriptors) == _EXPECTED:
                    self._start(connection, guest, terminal, descriptors)
                case ("plan",) if len(descriptors) == 1:
                    self._tell_plan(connection, descriptors[0])
                case ("signal", int(number)) if guest.pid:
                    signals.send_as_terminal(guest.pid, number)
                case ("signal", _):
                    pass
                case _:
                    self._drop(connection)
        finally:
            for fd in descriptors:
                os.close(fd)
        return connection in self._guests

    def _answer(
        self, connection: int, answer: tuple[str | int | None, ...], *descriptors: int
    ) -> None:
        try:
            _unix.send(connection, marshal.dumps(answer), descriptors)
        except OSError:
            return  # gone: the hang-up will be seen

    def _drop(self, connection: int) -> None:
        guest = self._guests.pop(connection)
        os.close(connection)
        if guest.inside >= 0:
            os.close(guest.inside)
        if guest.pid:
            signals.send(-guest.pid, signal.SIGKILL)

    def _tell_plan(self, connection: int, file: int) -> None:
        try:
            os.write(file, marshal.dumps(_plain(self._plan)))
        except OSError as error:
            self._answer(connection, ("failed", error.errno))
            return
        self._answer(connection, ("plan",))

    def _open_terminal(self, connection: int, guest: _Guest) -> None:
        try:
            primary = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            _linux.ioctl(primary, TIOCSPTLCK, pack("i", 0))
            path = f"/dev/pts/{_unix.ioctl_number(primary, TIOCGPTN)}"
            guest.inside = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            self._answer(connection, ("failed", error.errno))
            return
        self._answer(connection, ("terminal", path), primary)
        os.close(primary)

    def _start(
        self, connection: int, guest: _Guest, terminal: str, descriptors: tuple[int, ...]
    ) -> None:
        try:
            fields = marshal.loads(os.pread(descriptors[0], _REQUEST_LIMIT, 0))
            guest.pid = os.fork()
        except OSError as error:
            self._answer(connection, ("failed", error.errno))
            self._drop(connection)
            return
        if guest.pid == 0:
            self._become(fields, terminal, descriptors)

    def _become(
        self, fields: tuple[Any, ...], terminal: str, descriptors: tuple[int, ...]
    ) -> NoReturn:
        """Become a command that joins, in a child of process 1."""
        for number, fd in enumerate(descriptors[2:]):
            os.dup2(fd, number)
        command = self._plan.command
        argv, environment, directory, fallback, account, on_terminal = fields
        uid, gid, groups = account or (command.uid, command.gid, command.groups or ())
        command = replace(
            command,
            argv=argv,
            environment=(*command.environment, *environment),
            directory=directory or command.directory,
            fallback=fallback if directory else command.fallback,
            uid=uid,
            gid=gid,
            groups=groups if command.groups is not None else None,
            terminal=on_terminal,
            piped=(),
            init=None,
        )
        become(command, _ReportPipe(descriptors[1]), 0, terminal or None)


def _plain(value: object) -> Any:  # Any: what marshal takes
    """Return a record, and those in it, as tuples: ``asking`` makes records of them again."""
    if isinstance(value, Record):
        fields = tuple(_plain(getattr(value, name)) for name in value.__match_args__)
        return (type(value).__module__, type(value).__name__, fields)
    return tuple(_plain(each) for each in value) if isinstance(value, tuple) else value
