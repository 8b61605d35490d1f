"""Record: an immutable value compared by content, without dataclasses' import cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.record import HostPath, Record, assert_never, replace


class Point(Record):
    """A value with two fields, one of them with a default."""

    x: int
    y: int = 0


class Labelled(Point):
    """A value that inherits fields."""

    label: str = "unnamed"


class Other(Record):
    """The same fields as Point, and another meaning."""

    x: int
    y: int = 0


@given(st.integers(), st.integers())
def test_equal_content_is_equal_and_hashes_alike(x: int, y: int) -> None:
    assert Point(x, y) == Point(y=y, x=x)
    assert hash(Point(x, y)) == hash(Point(x, y))


def test_other_type_of_same_content_differs() -> None:
    assert Point(1, 2) != Other(1, 2)
    assert Point(1, 2) != (1, 2)


def test_default_is_used_and_inherited() -> None:
    assert Point(1).y == 0
    assert Labelled(1).label == "unnamed"
    assert Labelled(1, 2, "corner") == Labelled(label="corner", y=2, x=1)


def test_default_does_not_hide_the_field() -> None:
    assert Point.__match_args__ == ("x", "y")
    assert Point(1, 5).y == 5


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})],
    ids=["missing", "too many", "repeated", "unknown"],
)
def test_wrong_fields_are_refused(arguments: tuple[int, ...], named: dict[str, int]) -> None:
    with pytest.raises(TypeError):
        Point(*arguments, **named)


def test_assignment_is_refused() -> None:
    point = Point(1)
    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc] # the point of the test
    with pytest.raises(AttributeError):
        del point.x
    with pytest.raises(AttributeError):
        point.z = 2
    assert point == Point(1)


def test_replace_changes_a_copy() -> None:
    point = Labelled(1, 2, "corner")
    assert replace(point, y=3) == Labelled(1, 3, "corner")
    assert point.y == 2
    with pytest.raises(TypeError):
        replace(point, z=3)


def test_match_by_position() -> None:
    match Labelled(1, 2, "corner"):
        case Labelled(x, y, label):
            assert (x, y, label) == (1, 2, "corner")
        case _:
            pytest.fail("no match")


def test_repr_names_the_fields() -> None:
    assert repr(Point(1, 2)) == "Point(x=1, y=2)"


def test_path_types_are_plain_strings_at_run_time() -> None:
    assert type(HostPath("/etc")) is str


def test_closed_union_names_the_stray_value() -> None:
    with pytest.raises(AssertionError, match="'stray'"):
        assert_never("stray")  # type: ignore[arg-type] # the point of the test
