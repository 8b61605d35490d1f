"""How far the unpacking of a compressed image is: a bar on a terminal, a line or two elsewhere.

Off the start path of ``xbuild run``, and rich is loaded once there is something to show.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xbuild.cli.output import note

if TYPE_CHECKING:
    from xbuild.cli.progress import ProgressLine
    from xbuild.image.compressed import Progress


@contextmanager
def shown_unpacking(beginning: str, phase: str = "unpacking") -> Iterator[Progress]:
    """Show progress while the ``with`` lasts; where there is no terminal, say ``beginning`` once.

    The bar, and its thread, is gone when all was read.
    """
    line: ProgressLine | None = None

    def show(done: int, total: int) -> None:
        nonlocal line
        if line is None:
            if not (sys.stderr is not None and sys.stderr.isatty()):
                note(beginning)
            line = _begun()
        line.show(phase, done, total)
        if done >= total:
            line.__exit__(None, None, None)

    try:
        yield show
    finally:
        if line is not None:
            line.__exit__(None, None, None)


def _begun() -> ProgressLine:
    from xbuild.cli.progress import ProgressLine

    return ProgressLine().__enter__()
