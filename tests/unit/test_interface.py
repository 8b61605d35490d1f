"""The names that library users import."""

from __future__ import annotations

import ast
import importlib

import pytest

import xbuild


def test_every_public_name_is_there() -> None:
    for name in xbuild._HOMES:
        assert getattr(xbuild, name) is getattr(importlib.import_module(xbuild._HOMES[name]), name)


def test_type_checkers_see_the_same_names() -> None:
    assert xbuild.__file__ is not None
    with open(xbuild.__file__, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    seen = {a.asname for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen - {None, "annotations"} == set(xbuild._HOMES)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        xbuild.no_such_name  # noqa: B018 - looking it up is the point


def test_public_names_are_listed() -> None:
    assert set(xbuild._HOMES) <= set(dir(xbuild))
