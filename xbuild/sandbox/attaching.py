"""Being attached to the console of a detached container: the side of who asks (see ``console``)."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from xbuild.errors import ContainerFailed
from xbuild.sandbox.entry import CONSOLE
from xbuild.sandbox.listing import connect
from xbuild.sandbox.terminal import Relay, read_some

if TYPE_CHECKING:
    from xbuild.sandbox.listing import Handle

DETACH_KEY = b"\x1d"  # Ctrl-], as systemd-nspawn(1) has it
_TIMES = 3
_WITHIN_S = 1.0


class Attachment(Relay):
    """A relay whose output comes by socket, and which three times ^] within a second ends."""

    def __init__(self, descriptors: tuple[int, ...]) -> None:
        super().__init__(descriptors)
        self.is_detached = False
        self._pressed: list[float] = []

    def _read_typed(self, events: int) -> bool:
        goes_on = super()._read_typed(events)
        now = time.monotonic()
        for key in (self._typed[i : i + 1] for i in range(len(self._typed)) if goes_on):
            self._pressed = [*self._pressed[1 - _TIMES :], now] if key == DETACH_KEY else []
            if len(self._pressed) == _TIMES and now - self._pressed[0] <= _WITHIN_S:
                self.is_detached = True
                return False
        return goes_on


def attach(handle: Handle, terminal: tuple[int, ...]) -> int | None:
    """Use a container's console until it ends, and return its status; None once detached.

    Without a terminal its output is copied to descriptor 1. Raises ContainerFailed where it has
    no console or ends just now.
    """
    name = handle.running.name
    if not handle.running.has_console:
        raise ContainerFailed(
            f"Container {name} has no console of its own",
            f"it is where it was started; a command can join: xbuild exec {name}",
        )
    try:
        connection = connect(name, CONSOLE)
        message, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    except OSError as error:
        raise ContainerFailed(f"Container {name} has just ended") from error
    with connection:
        if not message or not descriptors:
            raise ContainerFailed(f"Container {name} has just ended")
        if not terminal:
            _copy(connection)
        else:
            relay = Attachment(terminal)
            relay.run_on(descriptors[0], lambda: False, source=connection.fileno())
            relay.close()
            if relay.is_detached:
                return None
    return handle.wait_for_all() or 0


def _copy(connection: socket.socket) -> None:
    while content := read_some(connection.fileno()):
        while content:
            content = content[os.write(1, content) :]
