"""``--ccache`` and ``--distcc``: what they add to a request, and what to say of it."""

from __future__ import annotations

import os

from xbuild.errors import UsageError
from xbuild.native.ccache import with_ccache
from xbuild.native.distcc import parse_servers, with_distcc
from xbuild.native.masquerade import check_frontend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Plan


def with_frontends(
    request: Request, ccache: str | None, distcc: str | None
) -> tuple[Request, tuple[str, ...]]:
    """Return ``request`` with what was asked for before the compilers, and notes.

    Raises UsageError and what the two raise.
    """
    if not os.path.isdir(request.target):
        raise UsageError("--ccache and --distcc are for trees", f"{request.target} is none")
    notes: tuple[str, ...] = ()
    if ccache is not None:
        request = with_ccache(request, ccache)
    if distcc is not None:
        request, notes = with_distcc(request, parse_servers(distcc))
    return request, notes


def check_frontends(plan: Plan, ccache: str | None, distcc: str | None) -> None:
    """Raise HostUnable where the set that was chosen lacks what was asked for."""
    if ccache is not None:
        check_frontend(plan, "ccache")
    if distcc is not None:
        check_frontend(plan, "distcc")
