"""What the one file with a start's modules leaves out of them, and what it keeps."""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest

import xbuild.plan.steps
import xbuild.sandbox.container
import xbuild.tree.resolve
from xbuild.bundle import lean_code

SOURCE = b"""
from __future__ import annotations
from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nowhere import Nothing
else:
    CHOSEN = "else"

class Point(Record):
    'A point.'
    x: Nothing
    y: int = 3

class Bare:
    if TYPE_CHECKING:
        x: int

def shift(point: Nothing, *more: int, by: int = 1, **rest: str) -> Point:
    'Move it.'
    return Point(point.x + by, point.y)
"""


@pytest.fixture
def lean() -> dict[str, object]:
    names: dict[str, object] = {"__name__": "sample"}
    exec(lean_code(SOURCE, "sample.py"), names)
    return names


def test_docstrings_and_annotations_of_functions_are_left_out(lean: dict[str, object]) -> None:
    shift = lean["shift"]
    assert isinstance(shift, types.FunctionType)
    assert (shift.__doc__, shift.__annotations__) == (None, {})


def test_what_is_left_works_as_before(lean: dict[str, object]) -> None:
    point, shift = lean["Point"], lean["shift"]
    assert callable(point)
    assert callable(shift)
    assert shift(point(1), by=2) == point(x=3, y=3)
    assert lean["CHOSEN"] == "else"


@pytest.mark.parametrize(
    "module", [xbuild.plan.steps, xbuild.sandbox.container, xbuild.tree.resolve]
)
def test_functions_keep_their_names_and_lines_for_tracebacks(module: types.ModuleType) -> None:
    assert module.__file__ is not None
    with open(module.__file__, "rb") as file:
        text = file.read()
    whole = compile(text, module.__file__, "exec", dont_inherit=True)
    made = lean_code(text, module.__file__)
    assert dict(_functions(made)).items() <= dict(_functions(whole)).items()


def _functions(code: types.CodeType) -> Iterator[tuple[tuple[str, str], int]]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield (constant.co_filename, constant.co_qualname), constant.co_firstlineno
            yield from _functions(constant)
