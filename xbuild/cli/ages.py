"""Lengths of time as people read them."""

from __future__ import annotations

_STEPS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def age_in_words(seconds: float) -> str:
    """Return a length of time by its greatest unit."""
    for step, unit in _STEPS:
        if seconds >= step:
            return f"{seconds / step:.0f}{unit}"
    return "0s"
