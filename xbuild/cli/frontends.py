"""``--ccache``, ``--distcc`` and ``--jobs-from``: what they add to a request, and notes on it."""

from __future__ import annotations

import os

from xbuild.errors import UsageError
from xbuild.native.ccache import with_ccache
from xbuild.native.distcc import parse_servers, with_distcc
from xbuild.native.distcc_hosts import read_hosts
from xbuild.native.masquerade import check_frontend
from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.cli.options import Parsed
    from xbuild.plan.request import Request
    from xbuild.plan.steps import Plan


class Frontends(Record):
    """What was said: a directory, servers, and a file that names some; None where nothing was."""

    ccache: str | None
    distcc: str | None
    jobs_from: str | None


def frontends_of(parsed: Parsed) -> Frontends:
    """Return what a command line and profiles say of them."""
    return Frontends(parsed.one("ccache"), parsed.one("distcc"), parsed.one("jobs_from"))


def with_frontends(request: Request, said: Frontends) -> tuple[Request, tuple[str, ...]]:
    """Return ``request`` with what was asked for before the compilers, and notes.

    Raises UsageError and what the two raise.
    """
    if not os.path.isdir(request.target):
        raise UsageError(
            "--ccache, --distcc and --jobs-from are for trees",
            f"{request.target} is none; values go by =: --ccache=DIR, --jobs-from=FILE",
        )
    notes: tuple[str, ...] = ()
    servers = parse_servers(said.distcc) if said.distcc is not None else ()
    if said.jobs_from is not None:
        hosts = read_hosts(said.jobs_from)
        servers, notes = (*servers, *hosts.servers), hosts.notes
    if said.ccache is not None:
        request = with_ccache(request, said.ccache)
    if said.distcc is not None or said.jobs_from is not None:
        request, refused = with_distcc(request, servers)
        notes += refused
    return request, notes


def check_frontends(plan: Plan, said: Frontends) -> None:
    """Raise HostUnable where the set that was chosen lacks what was asked for."""
    if said.ccache is not None:
        check_frontend(plan, "ccache")
    if said.distcc is not None or said.jobs_from is not None:
        check_frontend(plan, "distcc")
