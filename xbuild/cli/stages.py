"""Stages of a longer work on standard error: each named once, on a terminal with how far it is."""

from __future__ import annotations

import sys
from typing import Self

from xbuild.cli.output import visible


class Stages:
    """Shows one stage after another."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._text = ""
        self._percent = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._percent >= 0:
            self._write("\n")

    def show(self, text: str, fraction: float | None) -> None:
        """Say what is being done, and how much of it is done (0 to 1) where known."""
        percent = -1 if fraction is None or not self._is_terminal else int(fraction * 100)
        if (text, percent) == (self._text, self._percent):
            return
        if text != self._text and self._percent >= 0:
            self._write("\n")
        self._text, self._percent = text, percent
        self._write(f"\r{visible(text)} {percent} %" if percent >= 0 else f"{visible(text)}\n")

    def _write(self, text: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
