"""Deciding how the host's systemd sees what is booted: its journal, and machined's list.

The words are those of systemd-nspawn(1), the calls those of org.freedesktop.machine1(5). Off the
start path: loaded where one of them is asked for.
"""

from __future__ import annotations

import os
import shutil
import stat

from xbuild.errors import HostUnable, TargetError, UsageError
from xbuild.plan.lifecycle import LinkJournal, RegisterMachine
from xbuild.plan.request import BindRequest
from xbuild.record import GuestPath, HostPath, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.request import Request
    from xbuild.tree.resolve import TreeReader

JOURNALS = "/var/log/journal"
SYSTEM_BUS = "/run/dbus/system_bus_socket"
_ID_FILE = GuestPath("/etc/machine-id")
_ID_LENGTH = 32


def with_host_links(request: Request, reader: TreeReader) -> Request:
    """Return a request with what it takes. Raises HostUnable, TargetError, UsageError."""
    machine_id = read_machine_id(reader)
    if request.link_journal != "no":
        request = _with_journal(request, reader, machine_id)
    registered = _register(request, machine_id) if request.register != "no" else None
    if registered is not None:
        request = replace(request, host_links=(*request.host_links, registered))
    return request


def read_machine_id(reader: TreeReader) -> str:
    """Return what is in a tree's /etc/machine-id (machine-id(5)), nothing where it has none yet."""
    try:
        text = reader.read(_ID_FILE, 4096).decode("ascii", "replace").strip()
    except TargetError:
        return ""
    is_one = len(text) == _ID_LENGTH and all(c in "0123456789abcdef" for c in text)
    return text if is_one and text.strip("0") else ""


def _with_journal(request: Request, reader: TreeReader, machine_id: str) -> Request:
    kind = request.link_journal
    directory = HostPath(f"{JOURNALS}/{machine_id}")
    inside = GuestPath(directory)
    if kind == "auto":
        return (
            _with_bind(request, directory) if machine_id and os.path.isdir(directory) else request
        )
    if not machine_id:
        raise TargetError(
            f"Cannot link the journal: {request.target} has no machine-id yet",
            "boot it once without --link-journal, or systemd-machine-id-setup --root",
        )
    if kind == "host":
        if not os.path.isdir(directory):
            raise HostUnable(
                f"Cannot link the journal: there is no {directory} on this host",
                f"as root: mkdir -p {directory}",
            )
        return _with_bind(request, directory)
    if not os.path.isdir(request.target) or request.ephemeral or request.persist is not None:
        raise UsageError(
            "--link-journal guest is for a tree in a directory whose changes stay",
            "--link-journal host keeps the journal on the host",
        )
    found = reader.lookup(inside)
    if found is None or not stat.S_ISDIR(found.mode):
        raise TargetError(
            f"Cannot link the journal: {request.target} has no {inside}",
            f"mkdir -p {request.target}{inside}: systemd keeps a journal where that is",
        )
    if not os.path.isdir(JOURNALS):
        raise HostUnable(
            f"Cannot link the journal: this host has no {JOURNALS}", f"as root: mkdir {JOURNALS}"
        )
    link = LinkJournal(directory, HostPath(f"{request.target}{found.path}"))
    return replace(request, host_links=(*request.host_links, link))


def _with_bind(request: Request, directory: HostPath) -> Request:
    bind = BindRequest(directory, GuestPath(directory))
    return replace(request, binds=(*request.binds, bind))


def _register(request: Request, machine_id: str) -> RegisterMachine | None:
    is_required = request.register == "yes"
    program = shutil.which("busctl")
    address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", "")
    why = ""
    if program is None:
        why = "there is no busctl here, which comes with systemd"
    elif not address and not os.path.exists(SYSTEM_BUS):
        why = f"no D-Bus system bus runs here ({SYSTEM_BUS})"
    if program is None or why:
        if is_required:
            raise HostUnable(
                f"Cannot register with systemd-machined: {why}", "leave --register out"
            )
        return None
    address = address or f"unix:path={SYSTEM_BUS}"
    return RegisterMachine(HostPath(program), address, request.target, machine_id, is_required)
