"""Versions of qemu: read from its own words and from packages', compared, asked for by prefix."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Version: TypeAlias = tuple[int, ...]


def parse_version(text: str) -> Version:
    """Return the numbers that ``text`` begins with: (7, 2, 22) of "7.2.22"; () where none are."""
    numbers = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if digits:
            numbers.append(int(digits))
        if digits != part or not digits:
            break
    return tuple(numbers)


def package_version(text: str) -> Version:
    """Return the version of qemu in a package's: (10, 0, 13) of "1:10.0.13+ds-0+deb13u1"."""
    return parse_version(text.partition(":")[2] or text)


def is_asked_for(version: str, wanted: str) -> bool:
    """Tell whether ``version`` is ``wanted`` or a closer word for it: 7.2.22 is what 7.2 asks for.

    A version that is not known is what an empty wish asks for, and nothing else.
    """
    asked = parse_version(wanted)
    return parse_version(version)[: len(asked)] == asked
