"""Steps for networks of the container's own; ``networking`` decides on them."""

from __future__ import annotations

from xbuild.record import HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Protocol = Literal["tcp", "udp"]


NAMESERVER = "10.0.2.3"  # slirp4netns(1): it asks those of the host


class Forward(Record):
    """A port of the host that leads to one inside; ``host_address`` is where the host listens."""

    protocol: Protocol
    host_address: str
    host_port: int
    guest_port: int


class AttachUserNetwork(Record):
    """Connect the network namespace by a program that speaks for it with ordinary sockets.

    slirp4netns(1), run by the launcher while the container lives.
    """

    program: HostPath
    forwards: tuple[Forward, ...]


class AttachVeth(Record):
    """Connect the network namespace by a pair of interfaces, made by the launcher with ip(8).

    ``bridge`` takes the host's end; addresses have a prefix length, and are None where somebody
    else gives them out.
    """

    host_interface: str
    host_mac: str
    guest_interface: str
    guest_mac: str
    bridge: str | None = None
    host_address: str | None = None
    guest_address: str | None = None
