"""One comparison of the corpus, as a value."""

from __future__ import annotations

from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Stage = Literal[0, 1, 2, 3]

STAGES: tuple[Stage, ...] = (0, 1, 2, 3)


class Case(Record):
    """A piece of shell, run emulated and natively; all that it leaves under ``name`` must agree.

    ``tools`` are the programs that it judges, ``title`` says to people what is compared. A
    ``nuance`` is a difference that programs seldom meet: it makes a tool inexact, not unusable.
    A ``stage`` begins when the one before has ended: 0 reads sources, 1 what compilers and
    assemblers made, 2 what linkers and archivers made; 3 starts other programs of the set as well.
    """

    name: str
    tools: tuple[str, ...]
    script: str
    title: str
    nuance: str = ""
    stage: Stage = 0
