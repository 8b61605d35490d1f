"""Which of a command's descriptors become pipes to xbuild, where its output is wanted.

Off the start path: loaded where something asks to see what a command writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbuild.record import replace

if TYPE_CHECKING:
    from xbuild.plan.request import Request

_OUTPUTS = (1, 2)


def with_pipes(request: Request) -> Request:
    """Return a request whose command writes to pipes where it does not to the terminal."""
    wanted = {*request.piped, *_OUTPUTS} - set(request.terminal)
    return replace(request, piped=tuple(sorted(wanted)))


def without_terminal(request: Request) -> Request:
    """Return a request whose command has none: pipes, and at its end what would be its input."""
    at_end = (0,) if 0 in request.terminal else ()
    return replace(request, terminal=(), term=None, piped=(*at_end, *_OUTPUTS))
