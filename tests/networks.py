"""Networks of a test's own: a client and servers, each in a network namespace, joined by veth(4).

Nothing of it is seen by the host, and all goes with the processes that hold the namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.capability import require
from tests.patience import wait_for
from xbuild.record import Record


class Network(Record):
    """Process ids that hold the namespaces: of the client, and of each server by its address."""

    client: int
    servers: dict[str, int]

    def argv(self, holder: int, command: list[str]) -> list[str]:
        """Return the command line that runs ``command`` in a namespace."""
        return ["nsenter", f"--net=/proc/{holder}/ns/net", "--", *command]


@contextmanager
def network_of(count: int) -> Iterator[Network]:
    """Make a client's namespace and ``count`` servers', each with a link to the client."""
    require("root", os.geteuid() == 0, "only root makes network namespaces without a user's")
    require("iproute2", shutil.which("ip") is not None, "ip(8) is not installed")
    with ExitStack() as stack:
        client = stack.enter_context(_held_namespace())
        servers = {}
        for number in range(1, count + 1):
            server = stack.enter_context(_held_namespace())
            address = f"10.77.{number}.2"
            _ip(client, f"link add v{number} type veth peer name eth0 netns {server}")
            for holder, device, own in (
                (client, f"v{number}", f"10.77.{number}.1"),
                (server, "eth0", address),
            ):
                _ip(holder, f"addr add {own}/24 dev {device}")
                _ip(holder, f"link set {device} up")
            servers[address] = server
        yield Network(client, servers)


@contextmanager
def _held_namespace() -> Iterator[int]:
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo && exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n", "no network namespace"
        try:
            yield holder.pid
        finally:
            holder.kill()


def _ip(holder: int, words: str) -> None:
    command = ["nsenter", f"--net=/proc/{holder}/ns/net", "ip", *words.split()]
    subprocess.run(command, check=True)


def await_listener(holder: int, port: int) -> None:
    """Wait until something listens on a TCP port in a namespace."""
    wanted = f":{port:04X} 00000000:0000 0A"
    wait_for(lambda: wanted in Path(f"/proc/{holder}/net/tcp").read_text(encoding="ascii"))
