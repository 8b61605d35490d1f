"""Frozen, slotted value types and closed unions, without the import cost of dataclasses.

Scope: the three names that every domain module needs at start. ``dataclasses``, ``enum``,
``typing`` and ``pathlib`` together cost more than the whole start of a container (bench/), so the
modules that ``xbuild run`` loads use ``Record`` for values, ``Literal`` strings for enumerations
and the two path types below. Type checkers see ordinary frozen dataclasses.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, NewType, NoReturn, TypeVar, dataclass_transform

    HostPath = NewType("HostPath", str)
    GuestPath = NewType("GuestPath", str)
    ByteOrder = Literal["little", "big"]
    _R = TypeVar("_R", bound="Record")
else:
    HostPath = GuestPath = str

    def dataclass_transform(**_options):  # noqa: D103 - stands in for typing's at run time
        return lambda cls: cls


class _RecordType(type):
    """Turn annotated fields into slots, and their values into defaults."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _RecordType:
        inherited: dict[str, Any] = {}
        fields: tuple[str, ...] = ()
        for base in bases:
            inherited.update(getattr(base, "_defaults", {}))
            fields += getattr(base, "__match_args__", ())
        annotated = namespace.get("__annotations__", {})
        own = tuple(f for f in annotated if f not in fields and not f.startswith("_"))
        defaults = {field: namespace.pop(field) for field in own if field in namespace}
        namespace["__slots__"] = own
        namespace["__match_args__"] = fields + own
        namespace["_defaults"] = inherited | defaults
        return super().__new__(mcls, name, bases, namespace)


@dataclass_transform(frozen_default=True)
class Record(metaclass=_RecordType):
    """Base of immutable values compared by content.

    Subclasses annotate their fields (the module must say ``from __future__ import annotations``);
    a value given in the class body is the field's default. Fields may be passed by position or by
    name. Raises TypeError for a missing, unknown or repeated field, AttributeError on assignment.
    """

    if TYPE_CHECKING:
        _defaults: dict[str, Any]  # made for each class by the metaclass; Any: as the fields
        __match_args__: tuple[str, ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # Any: the fields carry the types
        fields = self.__match_args__
        if len(args) > len(fields):
            raise TypeError(f"{type(self).__name__} takes {len(fields)} fields, got {len(args)}")
        put = object.__setattr__
        for field, value in zip(fields, args, strict=False):
            put(self, field, value)
        for field in fields[len(args) :]:
            if field in kwargs:
                put(self, field, kwargs.pop(field))
            elif field in self._defaults:
                put(self, field, self._defaults[field])
            else:
                raise TypeError(f"{type(self).__name__} misses the field {field!r}")
        if kwargs:
            raise TypeError(f"{type(self).__name__} has no free field {next(iter(kwargs))!r}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: {name}")

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, field) for field in self.__match_args__)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        pairs = zip(self.__match_args__, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in pairs)})"


def replace(record: _R, **changes: object) -> _R:
    """Return a copy of ``record`` with some fields changed."""
    kept = {f: getattr(record, f) for f in record.__match_args__ if f not in changes}
    return type(record)(**kept, **changes)


def assert_never(value: NoReturn) -> NoReturn:
    """Close a union: a type checker proves that no value gets here."""
    raise AssertionError(f"unhandled: {value!r}")
