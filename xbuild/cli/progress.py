"""How far a transfer is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from xbuild.cli.output import note
from xbuild.cli.sizes import size_in_words

_LINE_EVERY_S = 10.0


class ProgressLine:
    """Shows one phase after another on standard error, with the rate and the time left.

    ``phase`` is the present one, "" before the first.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._is_terminal,
        )
        self.phase = ""
        self._task = TaskID(0)
        self._said = time.monotonic()
        self._began = self._said

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._bars.stop()

    def show(self, phase: str, done: int, total: int | None) -> None:
        """Say that ``done`` of ``total`` bytes of ``phase`` are done."""
        if phase != self.phase:
            self.phase, self._began = phase, time.monotonic()
            self._task = self._bars.add_task(phase, total=total)
        if self._is_terminal:
            self._bars.update(self._task, completed=done)
        elif time.monotonic() - self._said >= _LINE_EVERY_S:
            self._said = time.monotonic()
            note(f"{phase}: {_in_words(done, total, self._said - self._began)}")


def _in_words(done: int, total: int | None, elapsed_s: float) -> str:
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    text = f"{size_in_words(done)}, {size_in_words(int(rate))}/s"
    if total and rate:
        text += f", {done * 100 // total} %, {(total - done) / rate:.0f} s left"
    return text
