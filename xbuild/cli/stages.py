"""Stages of a longer work on standard error: each named, on a terminal with how far it is."""

from __future__ import annotations

import sys
import time
from typing import Self

from xbuild.cli.output import visible

_LINE_EVERY_S = 10.0
_ERASE_TO_END = "\x1b[K"  # ECMA-48, EL


class Stages:
    """Shows one stage after another.

    What is told with how much of it is done comes often, with other figures each time: it has one
    line on a terminal, and elsewhere one now and then.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._stage = ""
        self._said = 0.0
        self._is_open = False  # a line that can be written over

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._close()

    def show(self, text: str, fraction: float | None) -> None:
        """Say what is being done, and how much of it is done (0 to 1) where known."""
        if fraction is None:
            self._close()
            self._write(f"{visible(text)}\n")
        elif self._is_terminal:
            self._write(f"\r{visible(text)}, {fraction:.0%}{_ERASE_TO_END}")
            self._is_open = True
        elif self._is_due(text):
            self._write(f"{visible(text)}, {fraction:.0%}\n")

    def _is_due(self, text: str) -> bool:
        stage = " ".join(text.split()[:2])
        if stage == self._stage and time.monotonic() - self._said < _LINE_EVERY_S:
            return False
        self._stage, self._said = stage, time.monotonic()
        return True

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._write("\n")

    def _write(self, text: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
