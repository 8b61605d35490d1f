"""Deciding on networks of the container's own, and on names and addresses in them.

Off the start path: loaded where such a network was asked for.
"""

from __future__ import annotations

import hashlib
import os

from xbuild.errors import HostUnable
from xbuild.plan.host import NetworkFacts
from xbuild.plan.lifecycle import default_name
from xbuild.plan.networks import AttachUserNetwork, AttachVeth
from xbuild.record import HostPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.host import Host
    from xbuild.plan.request import Request

_GUEST_INTERFACE = "host0"  # as systemd-nspawn calls it: a guest's networkd configures it
_PREFIXES = {"veth": "ve-", "bridge": "vb-"}  # systemd's 80-container-ve.network goes by the first
_INTERFACE_LIMIT = 15  # characters: linux/if.h, IFNAMSIZ
_HASH_DIGITS = 4
_LINK_LOCAL_PAIRS = 1 << 14  # of four addresses each, in 169.254.0.0/16


def read_network() -> NetworkFacts:
    """Look for the programs, and read machine-id(5)."""
    return NetworkFacts(_find("slirp4netns"), _find("ip"), _machine_id())


def attach_step(
    request: Request, host: Host, facts: NetworkFacts
) -> AttachUserNetwork | AttachVeth:
    """Decide how the network is connected. Raises HostUnable."""
    if host.proc_is_masked:
        raise HostUnable(
            f"Cannot give the container a network ({request.network}): an outer container masks"
            " /proc, by which its network namespace would be found",
            "--network host or none works",
        )
    if request.network == "private":
        return AttachUserNetwork(_installed(facts.slirp4netns, "slirp4netns"), request.forwards)
    if not host.privileged:
        raise HostUnable(
            f"Cannot make network interfaces for --network {request.network}: only root may",
            "--network private gives an ordinary user's container a network of its own",
        )
    _installed(facts.ip, "iproute2")
    return _veth(request, request.name or default_name(request.target), facts.machine_id)


def _installed(program: HostPath | None, package: str) -> HostPath:
    if program is None:
        raise HostUnable(f"{package} is not installed, which makes this network", "install it")
    return program


def _find(name: str) -> HostPath | None:
    for directory in (*os.environ.get("PATH", os.defpath).split(":"), "/usr/sbin", "/sbin"):
        path = f"{directory}/{name}"
        if directory.startswith("/") and os.access(path, os.X_OK):
            return HostPath(path)
    return None


def _machine_id() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _veth(request: Request, name: str, machine_id: str) -> AttachVeth:
    is_bridged = request.network == "bridge"
    digest = _digest(machine_id, name, "address")
    base = int.from_bytes(digest[:2]) % (_LINK_LOCAL_PAIRS - 128) * 4 + 256
    host_address, guest_address = (
        f"169.254.{(base + n) >> 8}.{(base + n) & 255}/30" for n in (1, 2)
    )
    return AttachVeth(
        interface_name(_PREFIXES[request.network], name),
        mac_address(machine_id, name, "host"),
        _GUEST_INTERFACE,
        mac_address(machine_id, name, "guest"),
        request.bridge,
        None if is_bridged else host_address,
        None if is_bridged else guest_address,
    )


def interface_name(prefix: str, name: str) -> str:
    """Return the name of the host's end: the container's, or its beginning and a hash of it."""
    plain = prefix + name
    if len(plain) <= _INTERFACE_LIMIT:
        return plain
    digits = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{plain[: _INTERFACE_LIMIT - _HASH_DIGITS]}{digits}"


def mac_address(machine_id: str, name: str, side: str) -> str:
    """Return a locally administered unicast address, the same each time on one machine."""
    octets = bytearray(_digest(machine_id, name, side)[:6])
    octets[0] = octets[0] & 0xFC | 0x02
    return ":".join(f"{octet:02x}" for octet in octets)


def _digest(machine_id: str, name: str, purpose: str) -> bytes:
    return hashlib.sha256(f"xbuild\0{machine_id}\0{name}\0{purpose}".encode()).digest()
