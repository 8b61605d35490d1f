"""What the options mean that give a container a network of its own. Loaded where one is used."""

from __future__ import annotations

from xbuild.errors import UsageError
from xbuild.plan.networks import Forward
from xbuild.plan.request import Request
from xbuild.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.cli.options import Parsed
    from xbuild.plan.networks import Protocol
    from xbuild.plan.request import NetworkChoice

_PORT_FORM = "[IP:]HOST[:GUEST][/udp], or systemd-nspawn's udp:HOST:GUEST"
_MOST_PORT = 65535
_INTERFACE_LIMIT = 15  # characters: linux/if.h, IFNAMSIZ
_CHOICES: dict[str, NetworkChoice] = {
    "host": "host",
    "none": "none",
    "private": "private",
    "veth": "veth",
}


def with_network(request: Request, parsed: Parsed) -> Request:
    """Return a request with what these options say. Raises UsageError."""
    forwards = tuple(forward(text) for text in parsed.many("port"))
    said = parsed.one("network")
    kind, bridge = network("private" if said is None and forwards else said or "host")
    if forwards and kind != "private":
        raise UsageError(
            f"--port is for --network private, not {kind}",
            "the host's network needs none, and an interface of its own has an address",
        )
    return replace(request, network=kind, bridge=bridge, forwards=forwards)


def network(text: str) -> tuple[NetworkChoice, str | None]:
    """Parse ``--network``: what kind, and which bridge. Raises UsageError."""
    if text in _CHOICES:
        return _CHOICES[text], None
    kind, _, bridge = text.partition(":")
    if kind == "bridge" and 0 < len(bridge) <= _INTERFACE_LIMIT and "/" not in bridge:
        return "bridge", bridge
    raise UsageError(
        f"--network does not know {text!r}", "it takes host, none, private, veth or bridge:NAME"
    )


def forward(text: str) -> Forward:
    """Parse ``--port``, as docker or systemd-nspawn write it. Raises UsageError."""
    rest, _, protocol = text.partition("/")
    first, _, others = rest.partition(":")
    if first in ("tcp", "udp") and not protocol:
        protocol, rest = first, others
    address, ports = _apart(rest)
    kind: Protocol = "udp" if protocol == "udp" else "tcp"
    numbers = [_port(part, text) for part in ports.split(":")]
    if protocol not in ("", "tcp", "udp") or len(numbers) > 2:
        raise UsageError(f"Not a port to forward: {text}", _PORT_FORM)
    return Forward(kind, address, numbers[0], numbers[-1])


def _apart(text: str) -> tuple[str, str]:
    """Return the address to listen at and the ports: an address has dots."""
    address, _, ports = text.partition(":")
    parts = address.split(".")
    if len(parts) == 4 and all(part.isdigit() and int(part) < 256 for part in parts):
        return address, ports
    return "0.0.0.0", text


def _port(text: str, whole: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text[:6]) <= _MOST_PORT:
        return int(text)
    raise UsageError(f"Not a port to forward: {whole}", _PORT_FORM)
