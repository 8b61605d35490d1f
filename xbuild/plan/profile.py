"""Profiles: TOML files of settings for ``xbuild run`` (docs/profiles.md), found, read and checked.

Which keys there are is the caller's to say; merging with a command line is the caller's to do.
Every complaint names the file and the line.
"""

from __future__ import annotations

import os

from xbuild.errors import ProfileError, UsageError
from xbuild.pipes import with_patience
from xbuild.plan.computed import expand, has_computed, names_in
from xbuild.record import HostPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Literal

    ValueOf = Callable[[str], str]
    Vet = Callable[[HostPath, os.stat_result], None]
    Takes = Literal["nothing", "one", "many"]
    Paths = Literal["none", "whole", "versioned", "source"]

SUFFIX = ".toml"
DESCRIPTION = "description"
ARCH = "arch"
SIZE_LIMIT = 65536  # bytes
_TYPE_NAMES = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a float"),
    (str, "a string"),
    (list, "an array"),
    (dict, "a table"),
)
_WANTED = {"nothing": "true or false", "one": "a string", "many": "an array of strings"}


class Key(Record):
    """A key that a profile may have.

    ``paths``: its values are files of the host, or, for ``source``, begin with one as binds do;
    ``versioned`` ones may be NAME@VERSION instead.
    ``is_table``: NAME = "VALUE" pairs may stand in a table. ``check`` raises UsageError.
    """

    name: str
    takes: Takes
    paths: Paths = "none"
    is_table: bool = False
    check: Callable[[str], object] | None = None


class Profile(Record):
    """What a profile says: ``flags`` with their truth, ``values`` as if on a command line.

    Relative paths are resolved against the profile's own directory. ``arches`` are those that it is
    for, as written; () for any.
    """

    path: HostPath
    description: str
    flags: tuple[tuple[str, bool], ...]
    values: tuple[tuple[str, tuple[str, ...]], ...]
    arches: tuple[str, ...] = ()


def find_profile(name: str, directories: tuple[HostPath, ...]) -> HostPath:
    """Return the file that ``name`` means: a path, or a name in one of ``directories``.

    The first directory that has it wins. Raises ProfileError where none has.
    """
    if "/" in name or name.endswith(SUFFIX):
        return HostPath(os.path.abspath(os.path.expanduser(name)))
    for directory in directories:
        path = f"{directory}/{name}{SUFFIX}"
        if os.path.exists(path):
            return HostPath(path)
    known = [os.path.basename(path).removesuffix(SUFFIX) for path in list_profiles(directories)]
    close = _closest(name, known)
    hint = f"did you mean {close}?" if close else f"there are {', '.join(known) or 'none'}"
    raise ProfileError(f"No profile {name!r} in {', '.join(directories)}", hint)


def list_profiles(directories: tuple[HostPath, ...]) -> tuple[HostPath, ...]:
    """Return the profiles of all ``directories`` in their order, shadowed ones too."""
    found = []
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        found += [HostPath(f"{directory}/{name}") for name in names if name.endswith(SUFFIX)]
    return tuple(found)


def read_profile(
    path: HostPath,
    keys: tuple[Key, ...],
    value_of: ValueOf | None = None,
    vet: Vet | None = None,
) -> Profile:
    """Read and check a profile, as parse_profile() does; ``vet`` may refuse whose file it is."""
    return parse_profile(path, read_profile_text(path, vet), keys, value_of)


def read_profile_text(path: HostPath, vet: Vet | None = None) -> str:
    """Return a profile's text. Raises ProfileError."""
    try:
        with open(path, "rb", opener=with_patience) as file:
            if vet is not None:
                vet(path, os.fstat(file.fileno()))
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ProfileError(
            f"Cannot read the profile {path}: {error.strerror}",
            "look at the path and at who may read it: ls -l",
        ) from error
    if len(content) > SIZE_LIMIT:
        raise ProfileError(
            f"Not a profile: {path} has more than {SIZE_LIMIT} bytes",
            "is it another file? docs/profiles.md has what a profile is",
        )
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ProfileError(
            f"{path}:{line}: not UTF-8, which TOML is written in",
            "write it in UTF-8, as by iconv -t UTF-8",
        ) from error


def parse_profile(
    path: HostPath, text: str, keys: tuple[Key, ...], value_of: ValueOf | None = None
) -> Profile:
    """Check a profile's text; ``path`` is what it is relative to.

    ``value_of`` works computed values out; without it they stay as written. Raises ProfileError,
    which names the file and the line, and what ``value_of`` raises but for UsageError.
    """
    import tomllib  # off the start path, where no profile applies

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from error
    except RecursionError:
        raise ProfileError(
            f"{path}: nested too deeply",
            "a profile has keys and, for variables, one table: docs/profiles.md",
        ) from None
    reader = _Reader(path, text, keys, value_of)
    for key, value in document.items():
        reader.take(key, value)
    flags, values = tuple(reader.flags), tuple(reader.values)
    return Profile(path, reader.description, flags, values, reader.arches)


class _Reader:
    """Collects the settings of one document, key by key."""

    def __init__(
        self, path: HostPath, text: str, keys: tuple[Key, ...], value_of: ValueOf | None
    ) -> None:
        self._path = path
        self._value_of = value_of
        self._text = text
        self._keys = {key.name: key for key in keys}
        self.description = ""
        self.arches: tuple[str, ...] = ()
        self.flags: list[tuple[str, bool]] = []
        self.values: list[tuple[str, tuple[str, ...]]] = []

    def take(self, name: str, value: Any) -> None:  # Any: what TOML holds
        """Check a key of the document and keep what it says."""
        if name == DESCRIPTION:
            self._expect(isinstance(value, str), "a string", value, name)
            self.description = value
            return
        if name == ARCH:
            self.arches = self._strings(Key(ARCH, "many", check=_check_arch), value)
            return
        key = self._keys.get(name)
        if key is None:
            raise self._unknown(name)
        if key.takes == "nothing":
            self._expect(isinstance(value, bool), _WANTED["nothing"], value, name)
            self.flags.append((name, value))
        else:
            self.values.append((name, self._strings(key, value)))

    def _strings(self, key: Key, value: Any) -> tuple[str, ...]:
        name = key.name
        if key.is_table and isinstance(value, dict):
            pairs = [self._pair(name, *pair) for pair in value.items()]
        elif key.takes == "one":
            self._expect(isinstance(value, str), _WANTED["one"], value, name)
            pairs = [((name,), value)]
        else:
            wanted = _WANTED["many"] + (" or a table" if key.is_table else "")
            self._expect(isinstance(value, list), wanted, value, name)
            for each in value:
                self._expect(isinstance(each, str), wanted, each, name, "with ")
            pairs = [((name,), each) for each in value]
        checked = [self._checked(key, where, text) for where, text in pairs]
        return tuple(text for text in checked if text is not None)

    def _pair(self, name: str, inner: str, value: Any) -> tuple[tuple[str, ...], str]:
        self._expect(isinstance(value, str), "a string", value, name, inner=inner)
        if not inner or "=" in inner:
            raise self._error((name, inner), f"not the name of a variable: {inner!r}")
        return (name, inner), value

    def _checked(self, key: Key, where: tuple[str, ...], value: str) -> str | None:
        """Return a value as the command line has it; None for one that comes to nothing."""
        if "\0" in value:
            raise self._error(where, f"{key.name} holds a NUL character")
        expanded = self._expanded(where, value)
        if expanded is None:
            return None
        prefix = f"{where[1]}=" if len(where) > 1 else ""
        text = prefix + self._resolved(key, expanded)
        if key.check is not None and (self._value_of is not None or not has_computed(value)):
            try:
                key.check(text)
            except UsageError as error:
                raise self._error(where, error.message, error.hint) from error
        return text

    def _expanded(self, where: tuple[str, ...], value: str) -> str | None:
        try:
            if self._value_of is not None:
                return expand(value, self._value_of)
            names_in(value)
        except UsageError as error:
            raise self._error(where, error.message, error.hint) from error
        return value

    def _resolved(self, key: Key, text: str) -> str:
        """Make a path of the host absolute, as seen from the profile's directory."""
        if key.paths == "none" or not text:
            return text
        if key.paths == "versioned" and "@" in text and "/" not in text:
            return text
        directory = os.path.dirname(self._path)
        if key.paths in ("whole", "versioned"):
            return os.path.join(directory, os.path.expanduser(text))
        sign, path = ("-", text[1:]) if text.startswith("-") else ("", text)
        if path.startswith(("/", "~", ":", "{")):
            return text  # a bind expands ~ itself, and complains of an empty source
        escaped = directory.replace("\\", "\\\\").replace(":", "\\:")
        return f"{sign}{escaped}/{path}"

    def _expect(
        self, holds: bool, wanted: str, value: Any, name: str, what: str = "", *, inner: str = ""
    ) -> None:
        if not holds:
            where = (name, inner) if inner else (name,)
            label = ".".join(where)
            raise self._error(where, f"{label} takes {wanted}, not {what}{_type_name(value)}")

    def _unknown(self, name: str) -> ProfileError:
        close = _closest(name, [*self._keys, DESCRIPTION, ARCH])
        meant = f"; did you mean {close}?" if close else ""
        hint = "" if close else f"a profile has {', '.join([DESCRIPTION, ARCH, *self._keys])}"
        return self._error((name,), f"unknown key {name!r}{meant}", hint)

    def _error(self, where: tuple[str, ...], text: str, hint: str = "") -> ProfileError:
        lines = key_lines(self._text)
        line = lines.get(where) or lines.get(where[:1], 1)
        return ProfileError(f"{self._path}:{line}: {text}", hint)


def _check_arch(name: str) -> None:
    from xbuild.binary.arch import arch_named
    from xbuild.errors import UnknownArchitecture

    try:
        arch_named(name)
    except UnknownArchitecture as error:
        raise UsageError(error.message, error.hint) from error


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line at which each key of a valid document is first given, by its path.

    tomllib does not say. But no proper beginning of a statement is valid TOML by itself, so that
    tomllib can tell where each one ends: multi-line strings and arrays are no special case.
    """
    import tomllib

    found: dict[tuple[str, ...], int] = {}
    lines = text.split("\n")
    table: tuple[str, ...] = ()
    start = 0
    for end in range(1, len(lines) + 1):
        statement = "\n".join(lines[start:end])
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        is_header = statement.lstrip().startswith("[")
        paths = list(_paths(parsed))
        for path in paths:
            found.setdefault(path if is_header else table + path, start + 1)
        if is_header:
            table = paths[-1]
        start = end
    return found


def _paths(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key in tables, those of arrays of tables included, outer first."""
    if isinstance(value, list):
        for each in value:
            yield from _paths(each, above)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*above, key)
            yield from _paths(inner, (*above, key))


def _syntax_error(path: HostPath, text: str, error: ValueError) -> ProfileError:
    import re

    said = str(error)
    place = re.search(r" \(at line (\d+), column \d+\)$| \(at end of document\)$", said)
    line = place[1] if place is not None and place[1] else str(text.rstrip("\n").count("\n") + 1)
    message = said[: place.start()] if place is not None else said
    return ProfileError(f"{path}:{line}: not TOML: {message}", "see https://toml.io")


def _type_name(value: object) -> str:
    return next((name for kind, name in _TYPE_NAMES if isinstance(value, kind)), "a date or time")


def _closest(name: str, known: list[str]) -> str | None:
    import difflib  # only for a mistake

    return next(iter(difflib.get_close_matches(name, known, 1)), None)
