"""Interpreters by version: what ``--interpreter NAME@VERSION`` means on this host.

Off the start path: loaded where a version is asked for, or all are listed. What the host has is
run for its version unless that is known; what is in the cache has its version in its path.
"""

from __future__ import annotations

from xbuild.binary.arch import arch_named
from xbuild.emulation.interpreters import find_interpreter, verified_interpreter
from xbuild.emulation.provisioned import provisioned_versions
from xbuild.emulation.versions import is_asked_for, parse_version
from xbuild.errors import InterpreterError, InterpreterMissing, UsageError
from xbuild.record import HostPath, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.binary.arch import Arch
    from xbuild.emulation.interpreters import Interpreter


def interpreter_by_version(text: str) -> HostPath:
    """Return the newest interpreter that ``NAME@VERSION`` asks for.

    NAME is an architecture by any of its names, or qemu's own name for the program. Raises
    UsageError, UnknownArchitecture, InterpreterMissing.
    """
    name, _, version = text.partition("@")
    if not parse_version(version):
        raise UsageError(f"Not a version of an interpreter: {text!r}", "such as qemu-aarch64@10.0")
    arch = arch_named(name.removeprefix("qemu-").removesuffix("-static"))
    present = interpreters_for(arch)
    for each in present:
        if is_asked_for(each.version or "", version):
            return each.path
    found = ", ".join(f"{each.version} ({each.path})" for each in present) or "none"
    raise InterpreterMissing(
        f"No qemu-{arch.name} {version} on this host; there: {found}",
        f"xbuild setup --version {version} {arch.common_name}",
    )


def interpreters_for(arch: Arch) -> tuple[Interpreter, ...]:
    """Return all that this host and the cache have for ``arch``, the newest first."""
    found = {}
    for each in provisioned_versions():
        if arch.name in each.arches:
            found[each.path(arch)] = each.version
    present = [_known(arch, path, version) for path, version in found.items()]
    host = _of_host(arch)
    if host is not None and host.path not in found:
        present.append(host)
    return tuple(sorted(present, key=lambda each: parse_version(each.version or ""), reverse=True))


def _known(arch: Arch, path: HostPath, version: str) -> Interpreter:
    found = find_interpreter(arch, override=path)
    return replace(found, version=version, source="fetched by xbuild setup")


def _of_host(arch: Arch) -> Interpreter | None:
    try:
        return verified_interpreter(arch, remember=False)
    except InterpreterError:
        return None
