"""What a running container was planned as: asked of its process 1, which has the plan.

Scope: the side of who asks; ``service`` has the other. Off the start path.
"""

from __future__ import annotations

import marshal
import os
import socket
from importlib import import_module
from typing import TYPE_CHECKING

from xbuild.plan.steps import Plan
from xbuild.record import Record
from xbuild.sandbox.entry import CONTROL
from xbuild.sandbox.listing import connect

if TYPE_CHECKING:
    from xbuild.sandbox.listing import Running

_WHERE_PLANS_ARE_MADE_OF = "xbuild.plan."
_PATIENCE_S = 10.0
_ANSWER_BYTES = 4096


def plan_of(running: Running) -> Plan | None:
    """Return the plan of a container; None where it has ended, or is of another xbuild."""
    with open(os.memfd_create("plan"), "rb") as file:
        try:
            with connect(running.name, CONTROL) as connection:
                connection.settimeout(_PATIENCE_S)
                socket.send_fds(connection, [marshal.dumps(("plan",))], [file.fileno()])
                if connection.recv(_ANSWER_BYTES) != marshal.dumps(("plan",)):
                    return None
            file.seek(0)
            plan = _record(marshal.loads(file.read()))
        except (OSError, ValueError, TypeError, AttributeError, ImportError):
            return None
    return plan if isinstance(plan, Plan) else None


def _record(value: object) -> object:
    """Return the record of what ``service`` made of it."""
    match value:
        case (str(module), str(name), tuple(fields)) if module.startswith(_WHERE_PLANS_ARE_MADE_OF):
            kind = getattr(import_module(module), name)
            if not issubclass(kind, Record):
                raise TypeError(name)
            return kind(*(_record(field) for field in fields))
        case tuple():
            return tuple(_record(each) for each in value)
        case _:
            return value
