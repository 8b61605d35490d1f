"""The tables of docs/json.md as schemas: which keys a document has, and of which types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.installation import CHECKOUT

Types = tuple[str, ...]
Value = Any  # what JSON holds

_TEXT = (Path(CHECKOUT) / "docs/json.md").read_text(encoding="utf-8")
_EVENTS = "xbuild.events/1"
_CODE = re.compile(r"`([^`]+)`")
_SCALARS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "null": (type(None),),
}
_ITEMS = {"strings": "string", "numbers": "number", "objects": "object"}


def check_document(document: Value) -> None:
    """Raise AssertionError unless a document is as the table of the schema that it names."""
    keys = _keys_of(document["schema"])
    assert keys, document["schema"]
    _check_object(document, "", keys)


def check_event(event: Value) -> None:
    """Raise AssertionError unless an event is as the table of its kind."""
    keys = {"event": ("string",), "at_s": ("number",), **_events()[event["event"]]}
    _check_object(event, "", keys)


def _check_object(found: dict[str, Value], path: str, keys: Mapping[str, Types]) -> None:
    prefix = f"{path}." if path else ""
    wanted = {
        key[len(prefix) :]
        for key in keys
        if key.startswith(prefix) and re.fullmatch(r"\w+", key[len(prefix) :])
    }
    if not wanted:
        return  # an object whose keys are told elsewhere, or free
    assert set(found) == wanted, f"{path}: {set(found) ^ wanted}"
    for name, value in found.items():
        place = f"{prefix}{name}"
        assert any(_is_of(value, kind) for kind in keys[place]), (place, keys[place], value)
        if isinstance(value, dict):
            _check_object(value, place, keys)
        elif isinstance(value, list):
            for each in value:
                if isinstance(each, dict):
                    _check_object(each, f"{place}[]", keys)


def _is_of(value: Value, kind: str) -> bool:
    if kind.startswith("array of "):
        item = _ITEMS[kind.removeprefix("array of ")]
        return isinstance(value, list) and all(_is_of(each, item) for each in value)
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _SCALARS[kind])


def _keys_of(schema: str) -> dict[str, Types]:
    keys: dict[str, Types] = {}
    for key, types, *_ in _rows(schema):
        before = ""
        for name in _CODE.findall(key):
            before = before.rpartition(".")[0] + name if name.startswith(".") else name
            keys[before] = tuple(types.split(", "))
    return keys


def _events() -> dict[str, dict[str, Types]]:
    events: dict[str, dict[str, Types]] = {}
    kind = ""
    for event, key, types, *_ in _rows(_EVENTS):
        kind = event.strip("`") or kind
        for name in _CODE.findall(key):
            events.setdefault(kind, {})[name] = tuple(types.split(", "))
    return events


def _rows(schema: str) -> Iterator[list[str]]:
    """Yield the cells of each row of a section's first table."""
    _, _, section = _TEXT.partition(f"\n## {schema}\n")
    table = section.partition("\n|---")[2].partition("\n")[2]
    for line in table.splitlines():
        if not line.startswith("| "):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]
