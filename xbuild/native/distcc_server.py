"""``xbuild native serve``: distccd with the compilers of one set, in a container of its own.

The container's tree holds distccd and links to the set's compilers, at the paths that they look
for each other at, and nothing of the host's. What it compiles was preprocessed: it needs no
header. Commands that the tree lacks are refused, so that only clients with this set are served.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from xbuild.errors import ToolsetError, UsageError
from xbuild.native.distcc import (
    PORT,
    compiler_names,
    compilers_key,
    identity_command,
    unproven,
)
from xbuild.plan.make import plan_run
from xbuild.plan.request import BindRequest, Request
from xbuild.plan.steps import Plan
from xbuild.record import GuestPath, HostPath, Record
from xbuild.toolset.integrity import check_toolset
from xbuild.toolset.manifest import INSIDE, Toolset

_DISTCCD = "usr/bin/distccd"
_KINDS = ("compiler", "assembler")
_PASSWD = "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"


class Service(Record):
    """Where to listen, for which ``clients`` (ADDRESS[/BITS]), and ``jobs`` at once."""

    address: str
    clients: tuple[str, ...]
    port: int = PORT
    jobs: int = 2


def make_root(toolset: Toolset, place: HostPath) -> None:
    """Make the server's tree at the new directory ``place``. Raises ToolsetError."""
    source = f"{toolset.root}/{_DISTCCD}"
    names = compiler_names(toolset)
    if not os.path.exists(source) or not names:
        raise ToolsetError(
            f"The set {toolset.digest[:12]} has no {'distccd' if names else 'compiler driver'}",
            "xbuild native prepare --again TARGET; a distribution may have no distcc",
        )
    wrong = unproven(toolset)
    if wrong:
        raise ToolsetError(
            f"The set {toolset.digest[:12]} cannot be served: {wrong[0].path} is not proven"
            f" ({wrong[0].reason})",
            "clients would get other bytes than their own compilers make",
        )
    for name in ("usr/bin", "usr/lib/distcc", "etc", "tmp", "run", "proc", "sys", "dev"):
        os.makedirs(f"{place}/{name}")
    shutil.copy2(source, f"{place}/{_DISTCCD}")
    for name, content in (("passwd", _PASSWD), ("group", _GROUP)):
        with open(f"{place}/etc/{name}", "w", encoding="ascii") as file:
            file.write(content)
    for tool in toolset.tools:
        if tool.kind in _KINDS and tool.native and tool.level != "none":
            _link(place, tool.path, f"{INSIDE}/{tool.native}")
            if tool.kind == "assembler":
                _link(place, GuestPath("/usr/bin/as"), f"{INSIDE}/{tool.native}")
    first = next(name for name in ("gcc", *sorted(names)) if name in names)
    names[identity_command(compilers_key(toolset))] = names[first]
    for name, tool in names.items():
        native = tool.native
        # A driver looks for the others from where its file is, links followed.
        copy = f"{place}/usr/libexec/drivers/{native.replace('/', '-')}"
        if not os.path.exists(copy):
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            shutil.copy2(f"{toolset.root}/{native}", copy)
        os.link(copy, f"{place}/usr/bin/{name}")
        os.symlink("../../bin/distccd", f"{place}/usr/lib/distcc/{name}")


def _link(place: HostPath, path: GuestPath, target: str) -> None:
    os.makedirs(os.path.dirname(f"{place}{path}"), exist_ok=True)
    if not os.path.lexists(f"{place}{path}"):
        os.symlink(target, f"{place}{path}")


def plan_service(toolset: Toolset, service: Service, place: HostPath) -> Plan:
    """Plan the server's container, whose tree is at ``place``.

    Raises ToolsetDamaged, UsageError, HostUnable.
    """
    check_toolset(toolset, remember=True)
    if not service.clients:
        raise UsageError("No client may use the server", "--allow 192.168.1.0/24 names them")
    allowed = [word for client in service.clients for word in ("--allow", client)]
    command = (
        *(f"/{_DISTCCD}", "--no-detach", "--daemon", "--log-stderr", "--log-level", "notice"),
        *("--listen", service.address, "--port", str(service.port), "--jobs", str(service.jobs)),
        *("--user", "nobody", *allowed),
    )
    request = Request(
        place,
        command,
        binds=(BindRequest(toolset.root, INSIDE, read_only=True),),
        environment=(("PATH", "/usr/bin"), ("TMPDIR", "/tmp")),
        directory=GuestPath("/tmp"),
        hostname="xbuild-distccd",
        read_only=True,
    )
    return plan_run(request, remember=False)


def make_place() -> HostPath:
    """Make a directory for a server's tree; the caller removes it."""
    place = tempfile.mkdtemp(prefix="xbuild-serve-", dir="/var/tmp")
    os.chmod(place, 0o755)
    return HostPath(place)
