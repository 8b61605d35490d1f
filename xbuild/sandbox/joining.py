"""Running a command in a container that is running already: the side of who asks.

What process 1 does about it, and what is said between the two, is in ``service``.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import select
import signal
import socket
from typing import TYPE_CHECKING

from xbuild.errors import ContainerFailed
from xbuild.plan.make import DEFAULT_PATH
from xbuild.plan.steps import Exec, Plan
from xbuild.record import GuestPath, Record, replace
from xbuild.sandbox.asking import plan_of
from xbuild.sandbox.channel import Reports
from xbuild.sandbox.entry import CONTROL
from xbuild.sandbox.failure import explain_report
from xbuild.sandbox.listing import connect
from xbuild.sandbox.signals import Forwarding
from xbuild.sandbox.terminal import Relay

if TYPE_CHECKING:
    from typing import Any

    from xbuild.sandbox.listing import Running
    from xbuild.sandbox.tap import Tap

_KILLED = 128 + signal.SIGKILL
_ANSWER_BYTES = 4096
_PATIENCE_S = 30.0


class Joining(Record):
    """What a command that joins has of its own; None is as the container's command has it.

    ``environment`` is added to the container's. ``terminal`` lists which descriptors become the
    pseudo-terminal that was asked for.
    """

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    directory: GuestPath | None = None
    fallback: GuestPath | None = None
    account: tuple[int, int, tuple[int, ...]] | None = None  # uid, gid, groups
    terminal: tuple[int, ...] = ()

    def marshalled(self) -> bytes:
        """Return the fields as Service reads them."""
        return marshal.dumps(tuple(getattr(self, name) for name in self.__match_args__))


class Joined(Record):
    """How it ended, and the last that it wrote, where a terminal or a tap has shown it to us."""

    status: int
    last_output: bytes = b""


def join(running: Running, joining: Joining, tap: Tap | None = None) -> Joined:
    """Run a command in a container, as Container.run does; ``tap`` sees what it writes.

    Raises ContainerFailed where the container does not take it, CommandNotFound and
    CommandNotExecutable.
    """
    try:
        connection = connect(running.name, CONTROL)
    except OSError as error:
        raise _gone(running) from error
    with connection:
        relay = Relay(joining.terminal) if joining.terminal else None
        primary, path = (-1, "") if relay is None else _new_terminal(running, connection, relay)
        _start(running, connection, joining, path, tap)
        with Forwarding() as forwarding:
            forwarding.begin_by(lambda number: _send(connection, ("signal", number)))
            last_output = _relay(connection, relay, primary, tap)
            answer = _answer(connection)
    return Joined(int(answer[1]) if answer[:1] == ("status",) else _KILLED, last_output)


def _relay(connection: socket.socket, relay: Relay | None, primary: int, tap: Tap | None) -> bytes:
    """Pass on what is written until the command has ended; return the last of it."""
    if relay is None and tap is None:
        return b""
    last_output = b""
    _wake_on(connection)
    if relay is not None:
        relay.tap = tap
        relay.run_on(primary, lambda: _is_ready(connection))
        last_output = relay.last_output()
        relay.close()
    if tap is None:
        return last_output
    tap.run(lambda: _is_ready(connection))
    tap.close()
    return tap.tail()


def _new_terminal(running: Running, connection: socket.socket, relay: Relay) -> tuple[int, str]:
    _send(connection, ("terminal",))
    connection.settimeout(_PATIENCE_S)
    try:
        message, descriptors, _, _ = socket.recv_fds(connection, _ANSWER_BYTES, 1)
    except TimeoutError:
        raise _deaf(running) from None
    except OSError as error:
        raise _gone(running) from error
    connection.settimeout(None)
    match marshal.loads(message) if message else ():
        case ("terminal", str(path)) if descriptors:
            relay.sender.furnish(descriptors[0])
            return descriptors[0], path
        case ("failed", int(errno)):
            raise ContainerFailed(
                f"No terminal can be had in container {running.name}: {os.strerror(errno)}"
            )
        case _:
            raise _gone(running)


def _start(
    running: Running, connection: socket.socket, joining: Joining, path: str, tap: Tap | None
) -> None:
    reports = Reports()
    command = _exec_of(joining)
    outputs = (-1, -1) if tap is None else tap.open(command)
    with open(os.memfd_create("joining"), "wb") as file:
        file.write(joining.marshalled())
        file.flush()
        standard = (0, *(n if fd < 0 else fd for n, fd in enumerate(outputs, 1)))
        descriptors = [file.fileno(), *reports.descriptors(), *standard]
        socket.send_fds(connection, [marshal.dumps(("start", path))], descriptors)
    for fd in {*outputs} - {-1}:
        os.close(fd)
    reports.close_sender()
    if not reports.wait(_PATIENCE_S):
        raise _deaf(running)
    report = reports.receive()
    if report is not None:
        plan = plan_joined(running, joining) or Plan(running.tree, (command,))
        raise explain_report(replace(report, index=len(plan.steps) - 1), plan)
    if _is_ready(connection):
        answer = _answer(connection, socket.MSG_PEEK)
        if answer[:1] == ("failed",):
            raise ContainerFailed(
                f"Container {running.name} cannot start a process: {os.strerror(answer[1])}",
                "a limit on processes or memory is reached: its own, or this session's (ulimit -u)",
            )
        if not answer:
            raise _gone(running)


def _exec_of(joining: Joining) -> Exec:
    directory = joining.directory or GuestPath("/")
    environment = (("PATH", DEFAULT_PATH), *joining.environment)
    piped = tuple(number for number in (1, 2) if number not in joining.terminal)
    return Exec(joining.argv, environment, directory, piped=piped)


def plan_joined(running: Running, joining: Joining) -> Plan | None:
    """Return the container's plan with the command that joins in place of its own.

    None where it has ended, or is of another xbuild.
    """
    plan = plan_of(running)
    if plan is None:
        return None
    own = plan.command
    command = replace(
        _exec_of(joining),
        environment=(*own.environment, *joining.environment),
        directory=joining.directory or own.directory,
    )
    return replace(plan, steps=(*plan.steps[:-1], command))


def _gone(running: Running) -> ContainerFailed:
    return ContainerFailed(f"Container {running.name} has just ended", "xbuild ps lists the others")


def _deaf(running: Running) -> ContainerFailed:
    return ContainerFailed(
        f"Container {running.name} does not answer",
        "it is stopped (SIGSTOP), or the guest has ended what serves those who join",
    )


def _send(connection: socket.socket, message: tuple[Any, ...]) -> None:
    """Send a message; one that comes too late is lost (Any: strings and numbers)."""
    try:
        connection.send(marshal.dumps(message))
    except OSError:
        return


def _answer(connection: socket.socket, flags: int = 0) -> tuple[Any, ...]:
    """Wait for an answer; an empty one once the other side is gone (Any: as it was sent)."""
    try:
        content = connection.recv(_ANSWER_BYTES, flags)
    except ConnectionResetError:
        return ()
    answer: tuple[Any, ...] = marshal.loads(content) if content else ()
    return answer


def _is_ready(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _wake_on(connection: socket.socket) -> None:
    """Have a signal interrupt the relay when something comes, for it polls other things."""
    signal.signal(signal.SIGIO, lambda *_: None)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(connection, fcntl.F_GETFL)
    fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC)
