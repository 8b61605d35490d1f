"""Profiles on the command line: which keys they have, where they are, and who wins.

Off the start path: loaded where a profile applies.
"""

from __future__ import annotations

import os
import shlex
import stat

from xbuild.cli import settings
from xbuild.cli.options import OPTIONS, Option, Setting, check_choice
from xbuild.errors import ProfileError
from xbuild.plan.profile import Key, find_profile, read_profile
from xbuild.record import HostPath
from xbuild.resources import data_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xbuild.cli.computing import Computing
    from xbuild.cli.options import Parsed
    from xbuild.plan.profile import Paths, Profile, ValueOf

_PATHS: dict[str, Paths] = {
    "PATH": "whole",
    "PATH|NAME@VERSION": "versioned",
    "FILE": "whole",
    "SRC[:DST[:OPTIONS]]": "source",
}
COMMAND = "command"  # of a profile: what runs where no other is named; the last one counts
COMMAND_LINE = "command line"
_ABOUT_THE_RUN = ("dry_run", "json", "profile", "events", "cache_key")
_PAIRS = "NAME[=VALUE]"


def merge_profiles(parsed: Parsed, names: list[str]) -> None:
    """Put what profiles say before what the command line says. Raises ProfileError.

    Of single values the last one counts, so that a later profile wins over an earlier one, and
    the command line over all; lists are joined in that order.
    """
    flags: dict[str, bool] = {}
    values: dict[str, list[str]] = {}
    found: list[Setting] = []
    command: tuple[tuple[str, ...], HostPath] | None = None
    computing = _Computing(parsed)
    for name in names:
        profile = load_profile(name, computing.value_of)
        computing.check(profile)
        flags.update(profile.flags)
        found += [Setting(key, str(on).lower(), profile.path) for key, on in profile.flags]
        for key, said in profile.values:
            if key == COMMAND:
                command = said, profile.path
                continue
            values.setdefault(key, []).extend(said)
            found += [Setting(key, value, profile.path) for value in said]
    parsed.profiled = tuple(found)
    parsed.notes = computing.notes
    parsed.flags |= {key for key, is_on in flags.items() if is_on}
    for key, typed in parsed.values.items():
        values.setdefault(key, []).extend(typed)
    parsed.values = values
    if command is not None and not parsed.command:
        parsed.command, origin = command
        parsed.profiled += (Setting(COMMAND, shlex.join(parsed.command), origin),)


class _Computing:
    """Loads what works values out once there is one, or an architecture to compare with."""

    def __init__(self, parsed: Parsed) -> None:
        self._parsed = parsed
        self._loaded: Computing | None = None

    def value_of(self, name: str) -> str:
        return self._load().value_of(name)

    def check(self, profile: Profile) -> None:
        if profile.arches:
            self._load().require_arch(profile.arches, profile.path)

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self._loaded is None else tuple(dict.fromkeys(self._loaded.notes))

    def _load(self) -> Computing:
        if self._loaded is None:
            from xbuild.cli.computing import Computing

            self._loaded = Computing(self._parsed)
        return self._loaded


def load_profile(name: str, value_of: ValueOf | None = None) -> Profile:
    """Find, read and check a profile, as xbuild.plan.profile does. Raises ProfileError."""
    path = find_profile(name, profile_directories())
    if not path.endswith(settings.SETTINGS_SUFFIX):
        return read_profile(path, profile_keys(), value_of)
    for status in (os.lstat(path), os.stat(path)):
        _check_owner(path, status)  # before it is opened: it may be a FIFO
    return read_profile(path, profile_keys(), value_of, _check_owner)


def _check_owner(path: HostPath, status: os.stat_result) -> None:
    """Refuse settings that applied without being asked for and that another could have written."""
    may_be_written = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(
        status.st_mode
    )
    if status.st_uid not in (0, os.geteuid()) or may_be_written:
        raise ProfileError(
            f"{path} could be somebody else's: its settings would apply to what you run",
            "read it; then chown and chmod go-w it, or do without: --no-settings",
        )


def settings_said(parsed: Parsed) -> tuple[Setting, ...]:
    """Return what counts of all that was said, and where, in the order of the options' table.

    Of a single value that is the last one, of a switch what switched it on.
    """
    found: list[Setting] = []
    for option in OPTIONS:
        said = [each for each in parsed.profiled if each.key == option.key]
        if option.takes == "nothing":
            on = [each for each in said if each.value == "true"]
            if option.key in parsed.flags:
                found.append(on[-1] if on else Setting(option.key, "true", COMMAND_LINE))
            continue
        values = parsed.many(option.key)
        origins = [each.origin for each in said]
        origins += [COMMAND_LINE] * (len(values) - len(said))
        pairs = list(zip(values, origins, strict=True))
        pairs = pairs[-1:] if option.takes == "one" else pairs
        found += [Setting(option.key, value, origin) for value, origin in pairs]
    found += [each for each in parsed.profiled if each.key == COMMAND]
    return tuple(each for each in found if each.key not in _ABOUT_THE_RUN)


def profile_directories() -> tuple[HostPath, ...]:
    """Return where profiles are looked for by name, the strongest place first."""
    return (*settings.own_profile_directories(), data_directory("profiles"))


def profile_keys() -> tuple[Key, ...]:
    """Return the keys of a profile: those of the options that may stand in one."""
    return (
        Key(COMMAND, "many"),
        *(
            Key(
                option.key,
                option.takes,
                _PATHS.get(option.metavar, "none"),
                option.metavar == _PAIRS,
                _check_of(option),
            )
            for option in OPTIONS
            if option.in_profile
        ),
    )


def _check_of(option: Option) -> Callable[[str], object]:
    if option.choices:
        return lambda value: check_choice(option, value)
    return lambda value: settings.check_value(option.key, value)
