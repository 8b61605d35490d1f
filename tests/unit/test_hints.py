"""Every error says what to do next: where it is raised, or by its class."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

import pytest

import xbuild
from xbuild import errors, rare_errors, start_errors
from xbuild.errors import XbuildError

PACKAGE = os.path.dirname(xbuild.__file__)


def error_types() -> dict[str, type[XbuildError]]:
    homes = (start_errors, rare_errors)
    found = (each for home in homes for each in vars(home).values() if isinstance(each, type))
    return {each.__name__: each for each in found if issubclass(each, XbuildError)}


def modules() -> list[str]:
    return sorted(
        os.path.join(directory, name)
        for directory, _, names in os.walk(PACKAGE)
        for name in names
        if name.endswith(".py")
    )


def made_without_a_hint(source: str) -> Iterator[ast.Call]:
    """Yield where an error is made with a message alone, and its class has no hint either."""
    types = error_types()
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        kind = types.get(node.func.id)
        if kind is None or kind.usual_hint or any(isinstance(a, ast.Starred) for a in node.args):
            continue
        hint = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "hint")]
        if not hint or (isinstance(hint[0], ast.Constant) and not hint[0].value):
            yield node


@pytest.mark.parametrize("path", modules(), ids=lambda path: os.path.relpath(path, PACKAGE))
def test_every_error_has_a_next_step(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        found = [
            f"line {node.lineno}: {ast.unparse(node)}" for node in made_without_a_hint(file.read())
        ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("raise UsageError('no')", 1),
        ("raise UsageError('no', '')", 1),
        ("raise UsageError('no', hint='so')", 0),
        ("raise TargetNotFound('no')", 0),  # of a class that has one
        ("raise OutputLost('no')", 0),
        ("raise ValueError('no')", 0),
    ],
)
def test_the_search_finds_them(source: str, count: int) -> None:
    assert len(list(made_without_a_hint(source))) == count


def test_a_hint_of_its_own_comes_before_the_usual_one() -> None:
    assert errors.TargetNotFound("no").hint == errors.TargetNotFound.usual_hint
    assert errors.TargetNotFound("no", "so").hint == "so"


@pytest.mark.parametrize("kind", error_types().values(), ids=lambda kind: kind.__name__)
def test_usual_hints_are_one_line_without_a_full_stop(kind: type[XbuildError]) -> None:
    assert "\n" not in kind.usual_hint
    assert not kind.usual_hint.endswith(".")
