"""``xbuild run --distcc``: a native distcc in front of a tree's compilers, and its servers.

A server is used only if it has the very compilers that this run's set has: it is asked beforehand,
in distcc's own protocol (version 1, doc/protocol-1.txt of distcc), to compile a line by a name
that only such a server knows. What a server fails at, distcc compiles here.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator

from xbuild.binary.arch import host_arch
from xbuild.errors import DistccRefused, UsageError
from xbuild.native.languages import is_of_language
from xbuild.native.masquerade import compilers_in, stand_before
from xbuild.plan.request import Request, TmpfsRequest
from xbuild.record import GuestPath, Record, replace
from xbuild.toolset.digests import Digests
from xbuild.toolset.manifest import INSIDE, Tool, Toolset
from xbuild.toolset.match import list_toolsets, match_tree
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import survey_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.toolset.match import Choice

PORT = 3632
_STATE = GuestPath("/run/xbuild/distcc/state")
_TIMEOUT_S = 5.0
_LIMIT_BYTES = 1 << 20
_PROGRAM = b'# 1 "probe.c"\nint probe;\n'
_DRIVER = re.compile(
    r"(?P<triplet>[a-z0-9_]+(?:-[a-z0-9]+)?-linux-[a-z0-9_]+-)?(?P<base>gcc|g\+\+)(?P<version>-[0-9.]+)?"
)
_GENERIC = {"gcc": "cc", "g++": "c++"}
_PROPER = ("compiler", "assembler")
_KINDS = (*_PROPER, "driver")


class Server(Record):
    """A machine that compiles: ``slots`` at once. IPv6 addresses stand in brackets."""

    host: str
    port: int = PORT
    slots: int = 2

    def __str__(self) -> str:
        """Write it as distcc's host list has it: distcc(1), HOST SPECIFICATIONS."""
        return f"{self.host}:{self.port}/{self.slots}"


class Chosen(Record):
    """The servers of a run, and why others are not among them."""

    accepted: tuple[Server, ...]
    refused: tuple[str, ...]


def parse_servers(text: str) -> tuple[Server, ...]:
    """Read ``HOST[:PORT][/SLOTS],…``. Raises UsageError."""
    return tuple(_parse_server(word) for word in text.split(",") if word)


def _parse_server(word: str) -> Server:
    address, slash, slots = word.partition("/")
    if address.startswith("["):
        host, bracket, port = address.partition("]")
        host, port = host + bracket, port.removeprefix(":")
    else:
        host, _, port = address.partition(":")
    plain = host.strip("[]")
    is_name = bool(plain) and not plain.strip("abcdefghijklmnopqrstuvwxyz0123456789.-:_%")
    numbers = [n for n in (port, slots) if n]
    if not is_name or not all(n.isdecimal() and n.isascii() and int(n) for n in numbers):
        raise UsageError(f"Not a distcc server: {word!r}", "HOST[:PORT][/SLOTS], as build2/8")
    if (slash and not slots) or (port and int(port) > 0xFFFF):
        raise UsageError(f"Not a distcc server: {word!r}", "HOST[:PORT][/SLOTS], as build2/8")
    return Server(host, int(port or PORT), int(slots or 2))


def compilers_key(toolset: Toolset) -> str:
    """Return what two sets share that compile to the same bytes: their compilers' content.

    It covers the tree's programs that were compared with, and the native ones.
    """
    digests = {file.path: file.sha256 for file in toolset.files}
    lines = sorted(
        f"{tool.path} {tool.sha256} {digests.get(tool.native, '')} {tool.level != 'none'}\n"
        for tool in toolset.tools
        if tool.kind in _KINDS and tool.native
    )
    text = f"{toolset.architecture}\n{''.join(lines)}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def compiler_names(toolset: Toolset) -> dict[str, Tool]:
    """Return the driver for each name that a compiler may go by, at a server as at a client.

    A name without a version is known only where the set has one version of it.
    """
    drivers: dict[str, list[tuple[Tool, str, str]]] = {}
    for tool in toolset.tools:
        match = _DRIVER.fullmatch(os.path.basename(tool.path))
        if tool.kind == "driver" and tool.native and tool.level != "none" and match:
            row = (tool, match["triplet"] or "", match["version"] or "")
            drivers.setdefault(match["base"], []).append(row)
    names: dict[str, Tool] = {}
    for base, rows in drivers.items():
        for tool, triplet, version in rows:
            plain = (base, _GENERIC[base]) if len(rows) == 1 else ()
            for name in (f"{base}{version}", *plain):
                names[name] = names[f"{triplet}{name}"] = tool
    return names


def identity_command(key: str) -> str:
    """Return the name by which a server with these compilers, and no other, compiles."""
    return f"xbuild-cc-{key}"


def unproven(toolset: Toolset) -> tuple[Tool, ...]:
    """Return what of GCC and its assembler would compile otherwise than the tree's own."""
    return tuple(
        tool
        for tool in toolset.tools
        if tool.kind in _PROPER and tool.native and tool.level != "exact"
        if not is_of_language(tool.path)
    )


def choose_servers(servers: tuple[Server, ...], key: str) -> Chosen:
    """Ask each server for the compilers of ``key``."""
    accepted, refused = [], []
    for server in servers:
        try:
            ask_server(server, key)
        except DistccRefused as error:
            refused.append(error.message)
        else:
            accepted.append(server)
    return Chosen(tuple(accepted), tuple(refused))


def ask_server(server: Server, key: str) -> None:
    """Have a server compile a line with the compilers of ``key``. Raises DistccRefused."""
    command = (identity_command(key), "-c", "probe.i", "-o", "probe.o")
    message = b"DIST00000001" + _token(b"ARGC", len(command))
    for word in command:
        message += _token(b"ARGV", len(word)) + word.encode()
    message += _token(b"DOTI", len(_PROGRAM)) + _PROGRAM
    address = (server.host.strip("[]"), server.port)
    try:
        with socket.create_connection(address, timeout=_TIMEOUT_S) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.sendall(message)
            reply = _receive_all(connection)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DistccRefused(f"the distcc server {server} cannot be reached: {reason}") from error
    parts = dict(_parse_reply(reply))
    if parts.get(b"STAT") != b"" or not parts.get(b"DOTO", b"").startswith(b"\x7fELF"):
        raise DistccRefused(f"the distcc server {server} has not this set of native tools")


def _token(name: bytes, value: int) -> bytes:
    return name + b"%08x" % value


def _receive_all(connection: socket.socket) -> bytes:
    reply = b""
    while len(reply) < _LIMIT_BYTES:
        try:
            piece = connection.recv(1 << 16)
        except ConnectionResetError:  # what distccd refuses it need not read
            break
        if not piece:
            break
        reply += piece
    return reply


def _parse_reply(reply: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each token's name and data; a status of 0 as empty data, another as its number."""
    while len(reply) >= 12:
        name, digits, reply = reply[:4], reply[4:12], reply[12:]
        try:
            value = int(digits, 16)
        except ValueError:
            return
        if name in (b"SERR", b"SOUT", b"DOTO"):
            yield name, reply[:value]
            reply = reply[value:]
        else:
            yield name, digits if value else b""


def with_distcc(request: Request, servers: tuple[Server, ...]) -> tuple[Request, tuple[str, ...]]:
    """Return ``request`` with distcc before the compilers, and notes on servers left out.

    A request that has ccache already gets distcc behind it; without a server all is compiled here.
    Raises UsageError, ToolsetError, HostUnable, TargetError.
    """
    choice: Choice = "fast" if request.native == "fast" else "exact"
    with DirectoryReader(request.target) as reader:
        arch = survey_directory(reader).arch
        assert arch is not None
        match = match_tree(reader, arch.name, host_arch().name, choice, remember=False)
        names = _names_in(reader, match.toolset)
    wrong = [left for left in match.left if left.tool.kind in _PROPER and left.tool.native]
    if wrong or not names:
        why = f"{wrong[0].tool.path}: {wrong[0].reason}" if wrong else "no compiler of it is native"
        return request, (f"nothing is distributed: {why}",)
    chosen = choose_servers(servers, compilers_key(match.toolset))
    notes = tuple(f"{text}: it is left out" for text in chosen.refused)
    if not chosen.accepted:
        here = replace(request, native=choice)  # by native tools, as with a server
        return here, (*notes, "no distcc server is left: all is compiled here")
    jobs = sum(server.slots for server in chosen.accepted) + (os.cpu_count() or 1)
    environment = {
        "DISTCC_HOSTS": " ".join([*map(str, chosen.accepted), f"localhost/{os.cpu_count() or 1}"]),
        "DISTCC_DIR": _STATE,
        "MAKEFLAGS": f"-j{jobs}",
        "MAKEOPTS": f"-j{jobs}",
        "DEB_BUILD_OPTIONS": f"parallel={jobs}",
    }
    request = replace(request, tmpfs=(*request.tmpfs, TmpfsRequest(_STATE)))
    if any(name == "CCACHE_DIR" for name, _ in request.environment):
        environment["CCACHE_PREFIX"] = f"{INSIDE}/usr/bin/distcc"
        said = dict(request.environment)
        return replace(request, environment=tuple({**environment, **said}.items())), notes
    return stand_before(request, "distcc", names, environment), notes


def _names_in(reader: DirectoryReader, toolset: Toolset) -> tuple[str, ...]:
    """Return the names on a tree's PATH by which a server would start the same compiler."""
    digests, found = Digests(f"{reader.label} compilers"), []
    known = compiler_names(toolset)
    for name, path in compilers_in(reader).items():
        if name in known and known[name].path == path:
            with reader.open(path) as file:
                if digests.of(file.fileno()) == known[name].sha256:
                    found.append(name)
    return tuple(sorted(found))


def known_toolset(prefix: str) -> Toolset | None:
    """Return the set whose digest begins with ``prefix``; None unless there is just one."""
    found = [each for each in list_toolsets()[0] if each.digest.startswith(prefix)]
    return found[0] if len(found) == 1 else None
