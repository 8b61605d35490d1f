"""The outer user namespace that a run on a tree would have, or has. Off the start path."""

from __future__ import annotations

from xbuild.errors import HostUnable
from xbuild.plan.host import Host
from xbuild.plan.identities import choose_identities, identities_to_make_a_tree
from xbuild.plan.request import Request
from xbuild.tree.target import survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.ids import Identities
    from xbuild.plan.steps import IdMap
    from xbuild.record import HostPath


def outer_map_of(tree: HostPath) -> IdMap | None:
    """Return the ids, None for root, who needs no other. Raises XbuildError."""
    return choose_identities(Request(tree), survey(tree), Host.probe()).outer


def identities_of(tree: HostPath) -> Identities:
    """Return with which ids all of a tree is seen as its containers see it. Raises XbuildError."""
    found = survey(tree)
    identities = choose_identities(Request(tree), found, Host.probe())
    outside = identities.outer.uids if identities.outer else ()
    spans = (range(span.outside, span.outside + span.count) for span in outside)
    if identities.outer and not any(found.owner in span for span in spans):
        raise HostUnable(
            f"Cannot see {tree} as its containers do: it belongs to uid {found.owner}, not to you",
            "run as its owner, or as root",
        )
    return identities


def identities_of_new_tree() -> Identities:
    """Return with which ids a tree is made here. Raises HostUnable."""
    return identities_to_make_a_tree(Host.probe())
