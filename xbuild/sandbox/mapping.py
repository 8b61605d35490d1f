"""The outer user namespace that a run on a tree would have, or has. Off the start path."""

from __future__ import annotations

from xbuild.plan.host import Host
from xbuild.plan.identities import choose_identities, identities_to_make_a_tree
from xbuild.plan.request import Request
from xbuild.tree.survey import survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.identities import Identities
    from xbuild.plan.steps import IdMap
    from xbuild.record import HostPath


def outer_map_of(tree: HostPath) -> IdMap | None:
    """Return the ids, None for root, who needs no other. Raises XbuildError."""
    return choose_identities(Request(tree), survey(tree), Host.probe()).outer


def identities_of_new_tree() -> Identities:
    """Return with which ids a tree is made here. Raises HostUnable."""
    return identities_to_make_a_tree(Host.probe())
