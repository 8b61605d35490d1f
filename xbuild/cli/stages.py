"""Stages of a longer work on standard error: each named, on a terminal with how far it is."""

from __future__ import annotations

import sys
import time
from typing import Self

from xbuild.cli.output import visible

_LINE_EVERY_S = 30.0
_ERASE_TO_END = "\x1b[K"  # ECMA-48, EL


class Stages:
    """Shows one stage after another.

    On a terminal the line of a stage is written over while more of it gets done; elsewhere how far
    it is gets a line now and then.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._stage = ""
        self._said = 0.0
        self._is_open = False  # a line that is not finished
        self._announced = ""  # what that line says, where no figure is in it yet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._close()

    def show(self, text: str, fraction: float | None) -> None:
        """Say what is being done, and how much of it is done (0 to 1) where known."""
        text = visible(text)
        if fraction is None:
            self._announce(text)
        elif self._is_terminal:
            if self._announced not in ("", text):
                self._close()
            self._announced = ""
            self._write(f"\r{text}, {fraction:.0%}{_ERASE_TO_END}")
            self._is_open = True
        elif self._is_due(text):
            self._write(f"{text}, {fraction:.0%}\n")

    def _announce(self, text: str) -> None:
        self._close()
        self._stage, self._said = _name_of(text), time.monotonic()
        self._is_open, self._announced = self._is_terminal, text
        self._write(text if self._is_terminal else f"{text}\n")

    def _is_due(self, text: str) -> bool:
        stage = _name_of(text)
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


def _name_of(text: str) -> str:
    """Return what stays the same while a stage's text goes on."""
    return " ".join(text.split()[:2])
