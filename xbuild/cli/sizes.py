"""Sizes in bytes as people write and read them."""

from __future__ import annotations

import re

import click

_SIZE = re.compile(r"(\d+)(?:([kmgt])(ib|b)?|b)?", re.IGNORECASE)
_POWERS = "kmgt"
_LIMIT = 1 << 62

TYPE_CHECKING = False
if TYPE_CHECKING:
    _ParamType = click.ParamType[int]
else:
    _ParamType = click.ParamType  # not generic before click 8.4


def parse_size(text: str) -> int:
    """Return bytes: 512, 4K, 2G and 2GiB are binary, 32GB is decimal. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or not text.isascii():
        raise ValueError(f"{text!r} is no size: write 512M, 8G or 32GB")
    unit, ending = (match[2] or "").lower(), (match[3] or "").lower()
    base = 1000 if ending == "b" else 1024
    factor: int = base ** (_POWERS.index(unit) + 1 if unit else 0)
    size = int(match[1][:25]) * factor
    if not 0 < size < _LIMIT:
        raise ValueError(f"{text!r} is out of range")
    return size


def size_in_words(size: int) -> str:
    """Return bytes with a binary unit: "3.7 GiB"."""
    if size < 1 << 10:
        return f"{size} bytes"
    for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1):
        if size < 1 << (10 * (power + 1)) or unit == "TiB":
            return f"{size / (1 << 10 * power):.1f} {unit}"
    raise AssertionError(size)


class SizeType(_ParamType):
    """A size in bytes."""

    name = "size"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the size, or fail saying how to write one."""
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
