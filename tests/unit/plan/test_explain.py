"""Plans as JSON: schema xbuild.plan/1, docs/json.md."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest

from tests.unit.plan.records import plan_of
from tests.unit.plan.test_make import CASES
from xbuild.plan import copies, layers, lifecycle, limits, networks, privileges, steps
from xbuild.plan.emulate import HostEntry
from xbuild.plan.explain import SCHEMA, describe, to_json
from xbuild.plan.inits import Init
from xbuild.plan.substitution import AboutToolset, Substitution
from xbuild.record import GuestPath, HostPath, Record

DOCUMENT = os.path.join(os.path.dirname(__file__), "..", "..", "..", "docs", "json.md")


def documented() -> tuple[set[str], dict[str, set[str]]]:
    """Return the documented keys of a plan, and those of each step by its name."""
    with open(DOCUMENT, encoding="utf-8") as file:
        section = file.read().split(f"## {SCHEMA}\n", 1)[1].split("\n## ", 1)[0]
    rows = [row.split("|")[1:3] for row in section.splitlines() if row.startswith("| `")]
    names = {first.strip(" `"): set(re.findall(r"`(\w+)`", rest)) for first, rest in rows}
    kinds = {name: keys for name, keys in names.items() if name[0].isupper()}
    return set(names) - set(kinds), kinds


def step_types() -> list[type[Record]]:
    homes = (lifecycle, steps, privileges, layers, limits, networks, copies)
    found = (each for home in homes for each in vars(home).values() if isinstance(each, type))
    values = ("Record", "ControlGroup", "Forward", "IdRange", "IdMap", "Owner", "Plan")
    own = [e for e in found if issubclass(e, Record) and e.__name__ not in values]
    return list(dict.fromkeys(own))


def test_every_step_is_documented_with_its_keys() -> None:
    _, kinds = documented()
    assert kinds == {each.__name__: set(each.__match_args__) for each in step_types()}


@pytest.mark.parametrize("name", CASES)
def test_json_has_what_is_documented(name: str) -> None:
    keys, kinds = documented()
    plan = plan_of(CASES[name])
    document = json.loads(to_json(plan))
    assert set(document) == {key for key in keys if "." not in key and "[" not in key}
    assert document["schema"] == SCHEMA
    for step in document["steps"]:
        assert set(step) == {"step", *kinds[step["step"]]}


@pytest.mark.parametrize("name", CASES)
def test_json_says_all_that_the_plan_says(name: str) -> None:
    """Read back, every step is equal to the one that was written."""
    plan = plan_of(CASES[name])
    document = json.loads(to_json(plan))
    read = tuple(_step(each) for each in document["steps"])
    entries = tuple(HostEntry(**each) for each in document["host_entries"])
    assert steps.Plan(document["target"], read, tuple(document["notes"]), entries) == plan


def _step(document: dict[str, Any]) -> Any:  # Any: of the JSON's making
    name = document.pop("step")
    kind = next(each for each in step_types() if each.__name__ == name)
    values = {key: _value(key, value) for key, value in document.items()}
    if kind is limits.LimitResources:
        values["groups"] = tuple(
            limits.ControlGroup(**{key: _value(key, value) for key, value in group.items()})
            for group in document["groups"]
        )
    if document.get("init"):
        values["init"] = Init(**{key: _value("", value) for key, value in document["init"].items()})
    if kind is networks.AttachUserNetwork:
        values["forwards"] = tuple(networks.Forward(**each) for each in document["forwards"])
    if kind is steps.Register:
        values["line"] = document["line"].encode("ascii")
    return kind(**values)


def _value(key: str, value: Any) -> Any:
    if key in ("id_map", "owner"):
        return _record(key, value)
    if key == "about":
        return AboutToolset(**{k: _value("", v) for k, v in value.items()})
    if key == "substitutions":
        return tuple(Substitution(**{k: _value("", v) for k, v in each.items()}) for each in value)
    if isinstance(value, list):
        return tuple(_value("", each) for each in value)
    return value


def _record(key: str, value: dict[str, Any] | None) -> Record | None:
    if value is None:
        return None
    if key == "owner":
        return steps.Owner(**value)
    ranges = {k: tuple(steps.IdRange(**each) for each in value[k]) for k in ("uids", "gids")}
    return steps.IdMap(**(value | ranges))


def test_bytes_that_are_no_text_are_escaped() -> None:
    odd = steps.Plan(HostPath("/tree-\udcff"), (steps.Exec(("\udce9",), (), GuestPath("/")),))
    text = to_json(odd)
    assert text.isascii()
    assert json.loads(text)["target"] == "/tree-\udcff"


@pytest.mark.parametrize("kind", step_types(), ids=lambda kind: kind.__name__)
def test_every_kind_of_step_is_described_in_one_line(kind: type[Record]) -> None:
    found = [s for c in CASES.values() for s in plan_of(c).steps if type(s) is kind]
    assert found, "no golden plan has one"
    for step in found:
        verb, rest = describe(step)
        assert verb.isprintable()
        assert "\n" not in rest or kind in (steps.Exec, steps.Substitute)
