"""What to say where the words for a source name none: a likely slip of the pen comes first."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from xbuild.errors import TargetNotFound, UsageError

_ELSEWHERE = "other sources begin with their kind, as debian:SUITE: xbuild create --help"
_REFERENCE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?/[a-z0-9][a-z0-9._/:@-]*")
_ADDITIONS = re.compile(
    r"(?P<suite>.+?)(/updates|-(updates|security|backports|backports-sloppy|proposed|proposed-updates))"
)
_EXAMPLES = {"debian": "bookworm", "ubuntu": "noble"}


def unknown_source(text: str, kinds: Iterable[str], forms: Iterable[str]) -> UsageError:
    """Return the error for words that are neither a kind nor a path."""
    kind, colon, rest = text.partition(":")
    if colon and rest.startswith("//"):
        return UsageError(
            f"Cannot fetch {text!r}: of URLs, https:// and http:// are known", "or name a path"
        )
    close = difflib.get_close_matches(kind.lower(), sorted(kinds), n=2)
    if close:
        meant = " or ".join(f"{name}:{rest or '…'}" for name in close)
        return UsageError(f"Unknown source {text!r}", f"did you mean {meant}?")
    return UsageError(f"Unknown source {text!r}", f"known are {', '.join(forms)}")


def unknown_suite(distribution: str, suite: str) -> UsageError:
    """Return the error for what cannot be a suite's name."""
    return UsageError(f"{suite!r} is no suite", f"such as {distribution}:{_EXAMPLES[distribution]}")


def refuse_additions(distribution: str, suite: str) -> None:
    """Raise UsageError for a suite that has only what comes to another one: no tree is in it."""
    if whole := _ADDITIONS.fullmatch(suite):
        raise UsageError(
            f"{distribution}:{suite} is no whole release, but what is added to one",
            f"--from {distribution}:{whole['suite']}; packages of {suite} are for apt inside",
        )


def no_such_archive(text: str, path: str) -> TargetNotFound:
    """Return the error for a path where nothing is."""
    is_reference = _REFERENCE.fullmatch(text) is not None
    hint = f"an image of a registry is docker://{text}" if is_reference else _ELSEWHERE
    return TargetNotFound(f"No such file: {path}", hint)
