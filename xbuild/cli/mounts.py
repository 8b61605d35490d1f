"""What the options mean that mount more than binds and tmpfs. Loaded where one of them is used."""

from __future__ import annotations

import os

from xbuild.cli.places import OPTIONAL, guest_path, on_host, split_colons
from xbuild.errors import UsageError
from xbuild.plan.copies import CopyIn, CopyOut
from xbuild.plan.request import OverlayRequest, Request, TmpfsRequest
from xbuild.record import GuestPath, HostPath, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.cli.options import Parsed

_OVERLAY_FORM = "LOWER[:LOWER...]:UPPER:DST, the lowest first"
_OVERLAY_RO_FORM = "LOWER:LOWER[:LOWER...]:DST, the lowest first"


def with_mounts(request: Request, parsed: Parsed) -> Request:
    """Return a request with what these options say. Raises UsageError."""
    overlays = [overlay(text) for text in parsed.many("overlay")]
    overlays += [overlay_ro(text) for text in parsed.many("overlay_ro")]
    persist, hidden = parsed.one("persist"), parsed.many("inaccessible")
    changed = replace(
        request,
        overlays=tuple(overlays),
        inaccessible=tuple(inaccessible(text) for text in hidden if not text.startswith(OPTIONAL)),
        inaccessible_if_there=tuple(inaccessible(t) for t in hidden if t.startswith(OPTIONAL)),
        copies_in=tuple(copy_in(text) for text in parsed.many("copy_in")),
        copies_out=tuple(copy_out(text) for text in parsed.many("copy_out")),
        persist=None if persist is None else os.path.realpath(on_host(persist)),
    )
    return _made_volatile(changed, parsed.one("volatile") or "no")


def _made_volatile(request: Request, kind: str) -> Request:
    match kind:
        case "yes":
            return replace(request, volatile=True)
        case "state":
            var = TmpfsRequest(GuestPath("/var"), mode=0o755)
            return replace(request, read_only=True, tmpfs=(var, *request.tmpfs))
        case "overlay":
            return replace(request, ephemeral=True)
        case _:
            return request


def overlay(text: str) -> OverlayRequest:
    """Parse ``--overlay``. Raises UsageError."""
    *lowers, upper, destination = _parts(text, 3, _OVERLAY_FORM)
    paths = tuple(on_host(os.path.expanduser(path)) for path in (*lowers, upper))
    return OverlayRequest(paths[:-1], paths[-1], guest_path(destination, "--overlay"))


def overlay_ro(text: str) -> OverlayRequest:
    """Parse ``--overlay-ro``. Raises UsageError."""
    *lowers, destination = _parts(text, 3, _OVERLAY_RO_FORM)
    paths = tuple(on_host(os.path.expanduser(path)) for path in lowers)
    return OverlayRequest(paths, None, guest_path(destination, "--overlay-ro"))


def inaccessible(text: str) -> GuestPath:
    """Return what ``--inaccessible [-]PATH`` names, without the sign. Raises UsageError."""
    return guest_path(text.removeprefix(OPTIONAL), "--inaccessible")


def copy_in(text: str) -> CopyIn:
    """Parse ``--copy-in``. Raises UsageError."""
    source, destination = _pair(text)
    return CopyIn(on_host(os.path.expanduser(source)), guest_path(destination, "--copy-in"))


def copy_out(text: str) -> CopyOut:
    """Parse ``--copy-out``. Raises UsageError."""
    source, destination = _pair(text)
    if destination.endswith("/") and not os.path.isdir(os.path.expanduser(destination)):
        destination += os.path.basename(source)  # a directory to copy into, which is to be made
    directory, name = os.path.split(on_host(os.path.expanduser(destination)))
    # Links of the way are followed now: later ones may be the guest's.
    target = HostPath(os.path.join(os.path.realpath(directory), name))
    return CopyOut(guest_path(source, "--copy-out"), target)


def _pair(text: str) -> tuple[str, str]:
    parts = split_colons(text)
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"Not a copy: {text}", "SRC:DST; a colon in a path is written \\:")
    return parts[0], parts[1]


def _parts(text: str, least: int, form: str) -> list[str]:
    parts = split_colons(text)
    if len(parts) < least or not all(parts):
        raise UsageError(f"Not an overlay: {text}", form)
    return parts
