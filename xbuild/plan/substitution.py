"""What a plan says of native programs: which stand in for which, and of what set they are."""

from __future__ import annotations

from xbuild.record import GuestPath, Record


class Substitution(Record):
    """A program of the tree, and the native one that stands in for it when it is executed.

    ``native`` is its path inside, ``arguments`` are inserted after argv[0]; with one of
    ``emulate_for``, with LD_PRELOAD set unless ``drops_preload``, and where ``wants_plain_locale``
    in another locale than C, POSIX and C.UTF-8, the tree's own runs. The
    tree's file must still be as it was when this was planned: ``size`` in bytes, ``mtime_ns``,
    ``ctime_ns``.
    """

    path: GuestPath
    native: GuestPath
    kind: str
    verdict: str
    reason: str
    arguments: tuple[str, ...]
    emulate_for: tuple[str, ...]
    drops_preload: bool
    wants_plain_locale: bool
    size: int
    mtime_ns: int
    ctime_ns: int


class AboutToolset(Record):
    """A set of native tools, for the reader of a plan: ``emulated`` are (path, reason)."""

    digest: str
    provider: str
    corpus: str
    choice: str
    emulated: tuple[tuple[GuestPath, str], ...]
