"""``xbuild profile``: which profiles there are, and what they say."""

from __future__ import annotations

import json
import os

import click

from xbuild.cli.merge import load_profile, profile_directories, profile_keys
from xbuild.cli.options import Parsed
from xbuild.cli.output import note, visible
from xbuild.cli.settings import DEFAULT_PROFILE
from xbuild.errors import ProfileError
from xbuild.plan.profile import SUFFIX, Profile, list_profiles, read_profile_text
from xbuild.record import HostPath, Record, replace

SCHEMA = "xbuild.profile/1"
_ORIGINS = ("user", "system", "shipped")  # in the order of profile_directories()
_OWN = _ORIGINS[:2]

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON (see docs/json.md).")


class Listed(Record):
    """A profile as found; ``shadowed_by`` is the file that its name leads to instead."""

    name: str
    origin: str
    path: HostPath
    shadowed_by: HostPath | None
    content: Profile | None
    error: str | None

    @property
    def applies_by_itself(self) -> bool:
        """Whether every run has it without asking."""
        is_own = self.origin in _OWN
        return self.name == DEFAULT_PROFILE and is_own and self.shadowed_by is None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List and show profiles: settings for xbuild run --profile (docs/profiles.md)."""


@command.command("list", short_help="List the profiles that have a name")
@AS_JSON
def list_all(as_json: bool) -> None:
    """List the profiles that have a name, the strongest place first."""
    profiles = _profiles()
    if as_json:
        _print_json(profiles)
        return
    rows = [("NAME", "FROM", "WHAT IT DOES"), *(_row(each) for each in profiles)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, origin, text in rows:
        click.echo(f"{name:<{widths[0]}}  {origin:<{widths[1]}}  {text}".rstrip())


@command.command(short_help="Check a profile, and show it")
@click.argument("profile", metavar="NAME|FILE")
@click.argument("tree", required=False)
@AS_JSON
def show(profile: str, tree: str | None, as_json: bool) -> None:
    """Check a profile and show it: as it is written, or with --json as it is understood.

    With TREE, what is computed is shown with the values that a run on it has.
    """
    found = load_profile(profile) if tree is None else _load_for(profile, tree)
    if not as_json and tree is not None:
        _print_settings(found)
        return
    if not as_json:
        click.echo(f"# {visible(found.path)}")
        click.echo(read_profile_text(found.path), nl=False)
        return
    known = next((each for each in _profiles() if each.path == found.path), None)
    listed = known or Listed(_name_of(found.path), "file", found.path, None, found, None)
    _print_json([replace(listed, content=found)])


def _load_for(profile: str, tree: str) -> Profile:
    from xbuild.cli.computing import Computing

    parsed = Parsed()
    parsed.target = tree
    computing = Computing(parsed)
    found = load_profile(profile, computing.value_of)
    computing.require_arch(found.arches, found.path)
    for text in dict.fromkeys(computing.notes):
        note(text)
    return found


def _print_settings(profile: Profile) -> None:
    for key, is_on in profile.flags:
        click.echo(f"{key} = {str(is_on).lower()}")
    for key, values in profile.values:
        for value in values:
            click.echo(visible(f"{key} = {value}"))


def _profiles() -> list[Listed]:
    leads_to: dict[str, HostPath] = {}
    found = []
    for path in list_profiles(profile_directories()):
        name = _name_of(path)
        winner = leads_to.setdefault(name, path)
        content, error = None, None
        try:
            content = load_profile(path)
        except ProfileError as problem:
            error = problem.message
        shadowed_by = winner if winner != path else None
        found.append(Listed(name, _origin_of(path), path, shadowed_by, content, error))
    return found


def _name_of(path: HostPath) -> str:
    return os.path.basename(path).removesuffix(SUFFIX)


def _origin_of(path: HostPath) -> str:
    places = dict(zip(profile_directories(), _ORIGINS, strict=True))
    return places[HostPath(os.path.dirname(path))]


def _row(profile: Listed) -> tuple[str, str, str]:
    words = [profile.error or (profile.content.description if profile.content else "")]
    if profile.shadowed_by is not None:
        words.append(f"(hidden by {profile.shadowed_by})")
    if profile.applies_by_itself:
        words.append("(applies to every run)")
    return visible(profile.name), profile.origin, visible(" ".join(filter(None, words)))


def _print_json(profiles: list[Listed]) -> None:
    document = {"schema": SCHEMA, "profiles": [_plain(profile) for profile in profiles]}
    click.echo(json.dumps(document, indent=2))


def _plain(profile: Listed) -> dict[str, object]:
    content = profile.content
    return {
        "name": profile.name,
        "origin": profile.origin,
        "path": profile.path,
        "shadowed_by": profile.shadowed_by,
        "applies_by_itself": profile.applies_by_itself,
        "error": profile.error,
        "description": None if content is None else content.description,
        "arch": None if content is None else list(content.arches),
        "settings": None if content is None else _settings(content),
    }


def _settings(profile: Profile) -> dict[str, object]:
    singles = {key.name for key in profile_keys() if key.takes == "one"}
    said: dict[str, object] = dict(profile.flags)
    for key, values in profile.values:
        said[key] = values[0] if key in singles else list(values)
    return said
