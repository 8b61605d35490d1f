"""Profiles on the command line: which keys they have, where they are, and who wins.

Off the start path: loaded where a profile applies.
"""

from __future__ import annotations

from xbuild.cli import settings
from xbuild.cli.options import OPTIONS, Option, check_choice
from xbuild.plan.profile import Key, find_profile, read_profile
from xbuild.record import HostPath
from xbuild.resources import data_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xbuild.cli.options import Parsed
    from xbuild.plan.profile import Paths, Profile

_PATHS: dict[str, Paths] = {"PATH": "whole", "FILE": "whole", "SRC[:DST[:OPTIONS]]": "source"}
_PAIRS = "NAME[=VALUE]"


def merge_profiles(parsed: Parsed, names: list[str]) -> None:
    """Put what profiles say before what the command line says. Raises ProfileError.

    Of single values the last one counts, so that a later profile wins over an earlier one, and
    the command line over all; lists are joined in that order.
    """
    flags: dict[str, bool] = {}
    values: dict[str, list[str]] = {}
    for name in names:
        profile = load_profile(name)
        flags.update(profile.flags)
        for key, said in profile.values:
            values.setdefault(key, []).extend(said)
    parsed.flags |= {key for key, is_on in flags.items() if is_on}
    for key, typed in parsed.values.items():
        values.setdefault(key, []).extend(typed)
    parsed.values = values


def load_profile(name: str) -> Profile:
    """Find, read and check a profile. Raises ProfileError."""
    return read_profile(find_profile(name, profile_directories()), profile_keys())


def profile_directories() -> tuple[HostPath, ...]:
    """Return where profiles are looked for by name, the strongest place first."""
    return (*settings.own_profile_directories(), data_directory("profiles"))


def profile_keys() -> tuple[Key, ...]:
    """Return the keys of a profile: those of the options that may stand in one."""
    return tuple(
        Key(
            option.key,
            option.takes,
            _PATHS.get(option.metavar, "none"),
            option.metavar == _PAIRS,
            _check_of(option),
        )
        for option in OPTIONS
        if option.in_profile
    )


def _check_of(option: Option) -> Callable[[str], object]:
    if option.choices:
        return lambda value: check_choice(option, value)
    return lambda value: settings.check_value(option.key, value)
