"""Servers from a file of distcc's, or from its variable: distcc(1), HOST SPECIFICATIONS."""

from __future__ import annotations

import os

from xbuild.errors import UsageError
from xbuild.native.distcc import Server, parse_servers
from xbuild.pipes import with_patience
from xbuild.record import Record

DEFAULT = "default"
_VARIABLE = "DISTCC_HOSTS"
_HERE = ("localhost", "127.0.0.1", "[::1]")  # distcc's word for this machine, which compiles anyway


class Hosts(Record):
    """The servers that a list names, and what of it was left out and why."""

    servers: tuple[Server, ...]
    notes: tuple[str, ...]


def read_hosts(place: str) -> Hosts:
    """Read the file ``place``; DEFAULT is where distcc looks. Raises UsageError."""
    if place != DEFAULT:
        return parse_hosts(_read(place), place)
    said = os.environ.get(_VARIABLE)
    if said:
        return parse_hosts(said, _VARIABLE)
    home = os.environ.get("DISTCC_DIR") or os.path.expanduser("~/.distcc")
    places = (f"{home}/hosts", "/etc/distcc/hosts")
    for path in places:
        if os.path.exists(path):
            return parse_hosts(_read(path), path)
    raise UsageError(
        f"--jobs-from: neither {_VARIABLE} nor {' nor '.join(places)} is there",
        "name a file: --jobs-from=FILE, or hosts: --distcc HOST[:PORT][/N],...",
    )


def _read(path: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8", opener=with_patience) as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(
            f"Cannot read the hosts in {path}: {reason}",
            "a file with lines HOST[:PORT][/N], or --distcc HOST[:PORT][/N],...",
        ) from error


def parse_hosts(text: str, origin: str) -> Hosts:
    """Read a list of hosts. Raises UsageError, with ``origin`` and what is not understood."""
    servers: list[Server] = []
    notes = []
    for word in " ".join(line.partition("#")[0] for line in text.splitlines()).split():
        host, *options = word.split(",")
        if word.startswith(("--", "+")) or host.partition("/")[0] in _HERE:
            notes.append(f"{origin}: {word} is left out: xbuild chooses by itself")
            continue
        if "@" in host:
            raise UsageError(
                f"{origin}: {word} is reached by ssh, which containers do not have",
                "xbuild native serve on it, and name it as HOST[:PORT][/N]",
            )
        if options:
            notes.append(f"{origin}: of {word}, {', '.join(options)} is left out")
        servers += parse_servers(host)
    if not servers:
        raise UsageError(f"{origin} names no other machine", "HOST[:PORT][/N], one or more")
    return Hosts(tuple(servers), tuple(notes))
