"""From words to a request: what options, environment files and profiles mean, parsed once."""

from __future__ import annotations

import os

from xbuild.errors import UsageError
from xbuild.plan.lifecycle import KILL_TIMEOUT_S, NAME_LIMIT, is_name
from xbuild.plan.privileges import capability_names
from xbuild.plan.request import BindRequest, Request, TmpfsRequest
from xbuild.record import GuestPath, HostPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.cli.options import Parsed
    from xbuild.plan.request import BinfmtChoice, NetworkChoice, UsersChoice

DEFAULT_PROFILE = "default"  # applies without being asked for where a user or root has one
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 1e8  # three years: setitimer(2) and poll(2) take that
_MODE_LIMIT = 0o7777
_HOSTNAME_LIMIT = 64  # characters: gethostname(2), HOST_NAME_MAX


def build_request(parsed: Parsed) -> Request:
    """Turn a command line into a request. Raises UsageError, ProfileError."""
    assert parsed.target is not None
    profiles = parsed.many("profile")
    if DEFAULT_PROFILE not in profiles and _has_own_default():
        profiles = [DEFAULT_PROFILE, *profiles]
    if profiles:
        from xbuild.cli.merge import merge_profiles

        merge_profiles(parsed, profiles)
    interpreter = parsed.one("interpreter")
    directory = parsed.one("chdir")
    kept, dropped = _capabilities(parsed, "capability"), _capabilities(parsed, "drop_capability")
    terminal = tuple(fd for fd in range(3) if os.isatty(fd))
    return Request(
        target=HostPath(os.path.realpath(_on_host(parsed.target))),
        command=parsed.command,
        binds=_binds(parsed),
        tmpfs=tuple(_tmpfs(text) for text in parsed.many("tmpfs")),
        environment=environment_of(parsed),
        directory=None if directory is None else guest_path(directory, "--chdir"),
        user=parsed.one("user"),
        hostname=_hostname(parsed.one("hostname")),
        read_only="read_only" in parsed.flags,
        ephemeral="ephemeral" in parsed.flags,
        network=_network(parsed.one("network")),
        binfmt=_binfmt(parsed.one("binfmt")),
        private_users=_users(parsed.one("private_users")),
        interpreter=None if interpreter is None else _on_host(interpreter),
        cpu=parsed.one("cpu"),
        terminal=terminal,
        term=os.environ.get("TERM") if terminal else None,
        partition=parsed.one("partition"),
        subvolume=parsed.one("subvolume"),
        fsck="fsck" in parsed.flags,
        name=_name(parsed.one("name")),
        exclusive="exclusive" in parsed.flags,
        timeout_s=_seconds(parsed, "timeout"),
        idle_timeout_s=_seconds(parsed, "idle_timeout"),
        kill_timeout_s=_seconds(parsed, "kill_timeout") or KILL_TIMEOUT_S,
        setuid="setuid" in parsed.flags,
        capabilities=kept,
        drop_capabilities=dropped,
        seccomp="off" if parsed.one("seccomp") == "off" else "default",
        no_sync="no_sync" in parsed.flags,
    )


def _on_host(path: str) -> HostPath:
    """Return an absolute path; its symlinks are left for who follows it."""
    try:
        return HostPath(os.path.abspath(path))
    except FileNotFoundError as error:
        raise UsageError(
            f"Cannot tell what {path} is relative to: the working directory was removed",
            "cd somewhere, or begin it with a slash",
        ) from error


def check_value(key: str, text: str) -> None:
    """Raise UsageError for a value of an option that ``build_request`` would not take."""
    match key:
        case "bind" | "bind_ro":
            _bind(text, read_only=False)
        case "tmpfs":
            _tmpfs(text)
        case "setenv":
            _variable(text)
        case "env_file":
            _read_env_file(text)
        case "chdir":
            guest_path(text, "--chdir")
        case "hostname":
            _hostname(text)
        case "name":
            _name(text)
        case "timeout" | "idle_timeout" | "kill_timeout":
            read_seconds(text, key)
        case "capability" | "drop_capability":
            capability_names(text)


def _network(value: str | None) -> NetworkChoice:
    return "none" if value == "none" else "host"


def _binfmt(value: str | None) -> BinfmtChoice:
    if value == "private":
        return "private"
    return "host" if value == "host" else "auto"


def _users(value: str | None) -> UsersChoice:
    return "identity" if value == "identity" else "auto"


def _capabilities(parsed: Parsed, key: str) -> tuple[str, ...]:
    return tuple(name for text in parsed.many(key) for name in capability_names(text))


def _has_own_default() -> bool:
    places = own_profile_directories()
    return any(os.path.exists(f"{place}/{DEFAULT_PROFILE}.toml") for place in places)


def own_profile_directories() -> tuple[HostPath, ...]:
    """Return where a user and an administrator keep profiles, the stronger first."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    if not config.startswith("/"):
        config = os.path.join(os.environ.get("HOME", "/"), ".config")
    return (HostPath(f"{config}/xbuild/profiles"), HostPath("/etc/xbuild/profiles"))


def _binds(parsed: Parsed) -> tuple[BindRequest, ...]:
    writable = [_bind(text, read_only=False) for text in parsed.many("bind")]
    read_only = [_bind(text, read_only=True) for text in parsed.many("bind_ro")]
    return (*writable, *read_only)


def _bind(text: str, *, read_only: bool) -> BindRequest:
    source, destination, *options = [*split_colons(text), ""][:4]
    if options not in ([], [""], ["ro"], ["ro", ""]):
        raise UsageError(f"Not a bind: {text}", "SRC[:DST]; a colon in a path is written \\:")
    if not source:
        raise UsageError(f"A bind without a source: {text}", "SRC[:DST]")
    path = _on_host(os.path.expanduser(source))
    inside = guest_path(destination, "--bind") if destination else GuestPath(path)
    return BindRequest(path, inside, read_only or "ro" in options)


def split_colons(text: str) -> list[str]:
    r"""Split at colons; ``\:`` is a colon and ``\\`` a backslash, as in systemd-nspawn(1)."""
    parts = [""]
    characters = iter(text)
    for character in characters:
        if character == "\\":
            parts[-1] += next(characters, "\\")
        elif character == ":":
            parts.append("")
        else:
            parts[-1] += character
    return parts


def guest_path(text: str, option: str) -> GuestPath:
    """Return an absolute path inside the tree. Raises UsageError."""
    if not text.startswith("/"):
        raise UsageError(f"{option} takes an absolute path inside the tree, not {text!r}")
    return GuestPath(text)


def _tmpfs(text: str) -> TmpfsRequest:
    destination, _, given = text.partition(":")
    options: list[tuple[str, str | None]] = []
    mode = 0o1777
    for word in filter(None, given.split(",")):
        key, equals, value = word.partition("=")
        if key == "mode":
            mode = _octal(value, text)
        else:
            options.append((key, value if equals else None))
    return TmpfsRequest(guest_path(destination, "--tmpfs"), tuple(options), mode)


def _octal(value: str, text: str) -> int:
    is_octal = value != "" and not value.strip("01234567")
    if not is_octal or int(value, 8) > _MODE_LIMIT:
        raise UsageError(f"Not an octal mode in --tmpfs {text}: {value!r}", "such as mode=1777")
    return int(value, 8)


def environment_of(parsed: Parsed) -> tuple[tuple[str, str], ...]:
    """Return what --env-file and --setenv say, in that order. Raises UsageError."""
    pairs: list[tuple[str, str]] = []
    for path in parsed.many("env_file"):
        pairs += _read_env_file(path)
    for text in parsed.many("setenv"):
        pairs += _variable(text)
    return tuple(pairs)


def _variable(text: str) -> list[tuple[str, str]]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"Not a variable: {text!r}", "NAME=VALUE, or NAME to pass it on")
    if equals:
        return [(name, value)]
    return [(name, os.environ[name])] if name in os.environ else []


def _read_env_file(path: str) -> list[tuple[str, str]]:
    """Read lines NAME=VALUE; blank ones and those that begin with # are passed over."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise UsageError(f"Cannot read the environment file {path}: {error.strerror}") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or "\0" in text:
            raise UsageError(f"{path}:{number}: not NAME=VALUE: {text!r}")
        pairs.append((name.strip(), value))
    return pairs


def _name(text: str | None) -> str | None:
    if text is not None and not is_name(text):
        raise UsageError(
            f"Not a name for a container: {text!r}",
            f"letters, digits, -, _ and ., beginning with a letter or digit, at most {NAME_LIMIT}",
        )
    return text


def _seconds(parsed: Parsed, key: str) -> float | None:
    text = parsed.one(key)
    return None if text is None else read_seconds(text, key)


def read_seconds(text: str, key: str) -> float:
    """Return a length of time, in seconds unless s, m, h or d follows. Raises UsageError."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if number.replace(".", "", 1).isdecimal() and number.isascii():
        seconds = float(number) * _UNITS[unit]
        if 0 < seconds <= _LONGEST_S:
            return seconds
    option = "--" + key.replace("_", "-")
    raise UsageError(f"Not a length of time for {option}: {text!r}", "such as 90, 1.5, 15m, 2h")


def _hostname(name: str | None) -> str | None:
    if name is None:
        return None
    letters = name.replace("-", "").replace(".", "")
    if not letters.isalnum() or not name.isascii() or len(name) > _HOSTNAME_LIMIT:
        raise UsageError(f"Not a host name: {name!r}", "letters, digits, - and ., at most 64")
    return name
