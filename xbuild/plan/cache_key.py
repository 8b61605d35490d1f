"""A key for caches of what is built in a tree: the same wherever the same would be built. Pure."""

from __future__ import annotations

import hashlib

from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.request import NativeChoice

_FORMAT = "1"  # to be raised when what goes into a key changes
_DIGITS = 20


class Ingredients(Record):
    """What goes into a key: see docs/ci.md.

    ``version`` is the emulator's, "" where nothing is emulated. ``native`` counts only where
    native tools may write other bytes than the tree's.
    """

    architecture: str
    version: str
    cpu: str | None
    native: NativeChoice
    inventory: tuple[str, ...]


def cache_key(ingredients: Ingredients) -> str:
    """Return a key: its beginning says the architecture and the emulator, to search by."""
    native = "fast" if ingredients.native == "fast" else ""
    lines = (
        *(_FORMAT, ingredients.architecture, ingredients.version, ingredients.cpu or "", native),
        *ingredients.inventory,
    )
    content = "\n".join(lines).encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
    runs_by = f"qemu{_plain(ingredients.version)}" if ingredients.version else "native"
    return f"xbuild-{ingredients.architecture}-{runs_by}-{digest}"


def _plain(version: str) -> str:
    return "".join(c if c.isalnum() or c == "." else "_" for c in version)
