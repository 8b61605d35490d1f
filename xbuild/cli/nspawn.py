"""What a file of systemd.nspawn(5) settings means here, and what of it means nothing. Pure.

The format is that of systemd.syntax(7): sections, KEY=VALUE, comments with # or ;, lines that go on
after a backslash; an empty value forgets what a list had so far.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from xbuild.cli.merge import profile_keys
from xbuild.errors import UsageError
from xbuild.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xbuild.plan.profile import Key

_TRUE, _FALSE = ("1", "yes", "y", "true", "t", "on"), ("0", "no", "n", "false", "f", "off")
_SWITCHES = {
    "Exec/Boot": "boot",
    "Exec/Ephemeral": "ephemeral",
    "Exec/SuppressSync": "no_sync",
    "Files/ReadOnly": "read_only",
}
_SINGLE = {
    "Exec/User": "user",
    "Exec/WorkingDirectory": "chdir",
    "Exec/Hostname": "hostname",
    "Exec/KillSignal": "kill_signal",
    "Exec/LinkJournal": "link_journal",
    "Files/Volatile": "volatile",
}
_LISTS = {
    "Files/Bind": "bind",
    "Files/BindReadOnly": "bind_ro",
    "Files/TemporaryFileSystem": "tmpfs",
    "Files/Inaccessible": "inaccessible",
    "Files/Overlay": "overlay",
    "Files/OverlayReadOnly": "overlay_ro",
}
_WORDS = {"Exec/Capability": "capability", "Exec/DropCapability": "drop_capability"}
_VOLATILE = {**dict.fromkeys(_TRUE, "yes"), **dict.fromkeys(_FALSE, "no")}
_AS_ASKED = {  # a value that asks for what is so anyway
    "Exec/ProcessTwo": _TRUE,
    "Exec/NoNewPrivileges": _TRUE,
    "Exec/PrivateUsers": (*_TRUE, "pick"),
    "Exec/NotifyReady": _FALSE,
    "Exec/LinkJournal": _FALSE,
    "Exec/Timezone": ("off", "auto"),
    "Exec/ResolvConf": ("auto", "bind-host", "bind-stub"),
    "Files/PrivateUsersChown": (*_TRUE, *_FALSE),
    "Files/PrivateUsersOwnership": ("off", "auto", "map", "chown"),
    "Network/VirtualEthernet": _FALSE,
    "Network/Private": _FALSE,
}
_WHY = {
    "Exec/Parameters": "what follows -- stands on the command line: xbuild run TREE --",
    "Exec/Personality": "the architecture is read from the tree",
    "Exec/PivotRoot": "name the directory itself as the tree",
    "Exec/NoNewPrivileges": "setuid = true lets programs gain privileges",
    "Exec/PrivateUsers": "ranges are chosen by xbuild, and managed ones are not known",
    "Exec/SystemCallFilter": 'seccomp = "off" removes the filter there is',
    "Exec/LimitNPROC": "pids = limits the whole container",
    "Exec/CPUAffinity": "cpus = limits processor time; taskset(1) before xbuild binds it",
    "Exec/ResolvConf": "the host's resolv.conf is shown inside",
    "Files/BindUser": "bind the home directory, and have the user in the tree",
}


class Translation(Record):
    """Settings as they stand in a profile, and (line, key, why) of what is left out."""

    settings: tuple[tuple[str, str | bool | tuple[str, ...]], ...]
    left_out: tuple[tuple[int, str, str], ...]


def translate(text: str) -> Translation:
    """Translate a file's text. Raises UsageError where it is none of that format."""
    translator = _Translator()
    for number, name, value in _assignments(text):
        translator.take(number, name, value)
    return Translation(tuple(translator.settings()), tuple(translator.left_out))


def _assignments(text: str) -> Iterator[tuple[int, str, str]]:
    section, pending, began = "", "", 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith(("#", ";")) or (not stripped and not pending):
            continue
        began = began if pending else number
        if stripped.endswith("\\"):
            pending += stripped[:-1].rstrip() + " "
            continue
        whole, pending = pending + stripped, ""
        if whole.startswith("[") and whole.endswith("]"):
            section = whole[1:-1]
            continue
        key, equals, value = whole.partition("=")
        if not equals or not section:
            raise UsageError(
                f"Line {began} is no setting of a section: {whole!r}",
                "a line is [Section], KEY=VALUE, or begins with # or ;: systemd.nspawn(5)",
            )
        yield began, f"{section}/{key.strip()}", value.strip()


class _Translator:
    """Collects what has a meaning here, setting by setting."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {key.name: key for key in profile_keys()}
        self._switches: dict[str, bool] = {}
        self._single: dict[str, str] = {}
        self._lists: dict[str, list[str]] = {}
        self.left_out: list[tuple[int, str, str]] = []

    def settings(self) -> Iterator[tuple[str, str | bool | tuple[str, ...]]]:
        """Yield keys and values of a profile: single ones first, as tables end in TOML."""
        yield from self._single.items()
        yield from self._switches.items()
        yield from ((key, tuple(values)) for key, values in self._lists.items() if values)

    def take(self, number: int, name: str, value: str) -> None:
        """Translate one setting, or note why not."""
        try:
            is_taken = self._try(name, value)
            why = _WHY.get(name, "there is nothing like it")
        except UsageError as error:
            is_taken, why = False, error.message
        if not is_taken:
            self.left_out.append((number, f"{name.rpartition('/')[2]}={value}", why))

    def _try(self, name: str, value: str) -> bool:
        if value.lower() in _AS_ASKED.get(name, ()):
            return True
        if name in _SWITCHES and value.lower() in (*_TRUE, *_FALSE):
            self._switches[_SWITCHES[name]] = value.lower() in _TRUE
        elif name in _SINGLE:
            plain = _VOLATILE.get(value.lower(), value) if name == "Files/Volatile" else value
            self._single[_SINGLE[name]] = self._checked(_SINGLE[name], plain)
        elif name in _LISTS:
            self._extend(_LISTS[name], [value] if value else [])
        elif name in _WORDS:
            self._extend(_WORDS[name], [word.lower() for word in value.split()])
        elif name == "Exec/Environment":
            self._extend("setenv", shlex.split(value))
        elif name == "Exec/PrivateUsers" and value.lower() in (*_FALSE, "identity"):
            self._single["private_users"] = "identity"
        elif name == "Network/Private" and value.lower() in _TRUE:
            self._single.setdefault("network", "none")
        else:
            return False
        return True

    def _extend(self, key: str, values: list[str]) -> None:
        if not values:
            self._lists.pop(key, None)
            return
        if any(value.startswith("+") for value in values) and key in ("bind", "bind_ro"):
            raise UsageError(
                "a source inside the tree itself cannot be bound",
                "name it by its path on the host: /var/lib/machines/NAME/…",
            )
        self._lists.setdefault(key, []).extend(self._checked(key, value) for value in values)

    def _checked(self, key: str, value: str) -> str:
        check = self._keys[key].check
        if check is not None:
            check(value)
        return value
