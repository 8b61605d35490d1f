"""What an image says of how it is to be run, as settings beside its tree (docs/profiles.md). Pure.

The image is a stranger's: nothing but these four can come of it, and what makes no sense is named.
"""

from __future__ import annotations

import json

from xbuild.plan.computed import literal
from xbuild.source.oci_layout import ImageConfig


def settings_of(config: ImageConfig, name: str) -> tuple[str, tuple[str, ...]]:
    """Return the text of the settings, "" where there are none, and notes on what was left out."""
    lines, notes = [], []
    command = (*config.entrypoint, *config.command)
    if command and _is_plain(*command):
        lines.append(f"command = {_array(command)}")
    if config.directory not in ("", "/"):
        if config.directory.startswith("/") and _is_plain(config.directory):
            lines.append(f"chdir = {_string(config.directory)}")
        else:
            notes.append(f"its working directory is left out: {config.directory!r}")
    user, _, group = config.user.partition(":")
    if user not in ("", "0", "root") and _is_plain(user):
        lines.append(f"user = {_string(user)}")
    if group not in ("", "0", "root"):
        notes.append(f"its group is left out, users have their own: {group!r}")
    variables = config.environment
    kept = [each for each in variables if each.find("=") > 0 and _is_plain(each)]
    if len(kept) != len(variables):
        notes.append("some of its variables are left out: they are none")
    if kept:
        lines.append(f"setenv = {_array(tuple(kept))}")
    if not lines:
        return "", tuple(notes)
    title = f"What {name} says of how to run it"
    return "\n".join((f"description = {json.dumps(title)}", *lines, "")), tuple(notes)


def _array(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(map(_string, values)) + "]"


def _string(value: str) -> str:
    # A string of JSON is one of TOML, but for DEL. A value in braces would be one of the host's.
    return json.dumps(literal(value))


def _is_plain(*texts: str) -> bool:
    return not any(character in text for text in texts for character in "\0\x7f")
