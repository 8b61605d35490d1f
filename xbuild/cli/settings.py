"""From words to a request: what options, environment files and profiles mean, parsed once."""

from __future__ import annotations

import os

from xbuild.cli.places import bind, binds, guest_path, on_host, tmpfs
from xbuild.errors import UsageError
from xbuild.plan.lifecycle import KILL_TIMEOUT_S, NAME_LIMIT, is_name
from xbuild.plan.privileges import capability_names
from xbuild.plan.request import Request
from xbuild.record import HostPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.cli.options import Parsed
    from xbuild.plan.request import BinfmtChoice, NativeChoice, UsersChoice

DEFAULT_PROFILE = "default"  # applies without being asked for where a user or root has one
SETTINGS_SUFFIX = ".xbuild.toml"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 1e8  # three years: setitimer(2) and poll(2) take that
# Options whose meaning is in cli.mounts, which is off the start path.
_MOUNT_KEYS = frozenset(
    ("overlay", "overlay_ro", "inaccessible", "volatile", "persist", "copy_in", "copy_out")
)
_LIMIT_KEYS = frozenset(("memory", "cpus", "pids", "io_weight"))  # in cli.limits
_ID_KEYS = frozenset(("uid_map", "gid_map"))
_NETWORK_KEYS = frozenset(("network", "port"))  # in cli.networks
_BOOT_KEYS = frozenset(("kill_signal", "link_journal", "register"))  # in cli.booting
_HOSTNAME_LIMIT = 64  # characters: gethostname(2), HOST_NAME_MAX


def build_request(parsed: Parsed) -> Request:
    """Turn a command line into a request. Raises UsageError, ProfileError."""
    assert parsed.target is not None
    profiles = parsed.many("profile")
    beside = settings_beside(parsed.target)
    if "no_settings" not in parsed.flags and os.path.exists(beside):
        profiles = [beside, *profiles]
    if DEFAULT_PROFILE not in profiles and _has_own_default():
        profiles = [DEFAULT_PROFILE, *profiles]
    if profiles:
        from xbuild.cli.merge import merge_profiles

        merge_profiles(parsed, profiles)
    elif _is_without_end(parsed):
        parsed.notes = ("--kill-timeout counts with --timeout, --idle-timeout and --boot alone",)
    return request_of(parsed)


def _is_without_end(parsed: Parsed) -> bool:
    """Tell whether it is said how a run is ended, and nothing ends it."""
    said = parsed.values
    if "kill_timeout" not in said:
        return False
    return "timeout" not in said and "idle_timeout" not in said and "boot" not in parsed.flags


def request_of(parsed: Parsed) -> Request:
    """Turn what was said into a request, profiles aside. Raises UsageError."""
    assert parsed.target is not None
    interpreter = parsed.one("interpreter")
    directory = parsed.one("chdir")
    kept, dropped = _capabilities(parsed, "capability"), _capabilities(parsed, "drop_capability")
    terminal = tuple(fd for fd in range(3) if os.isatty(fd))
    request = Request(
        target=HostPath(os.path.realpath(on_host(parsed.target))),
        command=parsed.command,
        binds=binds(parsed),
        tmpfs=tuple(tmpfs(text) for text in parsed.many("tmpfs")),
        environment=environment_of(parsed),
        directory=None if directory is None else guest_path(directory, "--chdir"),
        user=parsed.one("user"),
        hostname=_hostname(parsed.one("hostname")),
        read_only="read_only" in parsed.flags,
        ephemeral="ephemeral" in parsed.flags,
        binfmt=_binfmt(parsed.one("binfmt")),
        private_users=_users(parsed.one("private_users")),
        interpreter=None if interpreter is None else _interpreter(interpreter),
        native=_native(parsed.one("native")),
        cpu=parsed.one("cpu"),
        terminal=terminal,
        term=os.environ.get("TERM") if terminal else None,
        partition=parsed.one("partition"),
        subvolume=parsed.one("subvolume"),
        fsck="fsck" in parsed.flags,
        name=_name(parsed.one("name")),
        exclusive="exclusive" in parsed.flags,
        as_pid1="as_pid1" in parsed.flags,
        timeout_s=_seconds(parsed, "timeout"),
        idle_timeout_s=_seconds(parsed, "idle_timeout"),
        kill_timeout_s=_seconds(parsed, "kill_timeout") or KILL_TIMEOUT_S,
        setuid="setuid" in parsed.flags,
        capabilities=kept,
        drop_capabilities=dropped,
        seccomp="off" if parsed.one("seccomp") == "off" else "default",
        no_sync="no_sync" in parsed.flags,
    )
    if parsed.one("console") == "pipe":
        from xbuild.plan.piping import without_terminal  # off the start path

        request = without_terminal(request)
    if parsed.values.keys() & _MOUNT_KEYS:
        from xbuild.cli.mounts import with_mounts

        request = with_mounts(request, parsed)
    if parsed.values.keys() & _LIMIT_KEYS:
        from xbuild.cli.limits import with_limits

        request = with_limits(request, parsed)
    if parsed.values.keys() & _ID_KEYS:
        from xbuild.cli.limits import with_ids

        request = with_ids(request, parsed)
    if parsed.values.keys() & _NETWORK_KEYS:
        from xbuild.cli.networks import with_network

        request = with_network(request, parsed)
    if "boot" in parsed.flags or parsed.values.keys() & _BOOT_KEYS:
        from xbuild.cli.booting import with_boot

        request = with_boot(request, parsed)
    return request


def _interpreter(text: str) -> HostPath:
    if "@" in text and "/" not in text and not os.path.exists(text):
        from xbuild.emulation.selection import interpreter_by_version  # off the start path

        return interpreter_by_version(text)
    return on_host(text)


def check_value(key: str, text: str) -> None:
    """Raise UsageError for a value of an option that ``build_request`` would not take."""
    match key:
        case "bind" | "bind_ro":
            bind(text, read_only=False)
        case "overlay" | "overlay_ro" | "inaccessible" | "copy_in" | "copy_out":
            _check_mount(key, text)
        case "memory" | "cpus" | "pids" | "io_weight":
            from xbuild.cli.limits import read_limit  # off the start path

            read_limit(key, text)
        case "uid_map" | "gid_map":
            from xbuild.cli.limits import id_range  # off the start path

            id_range(text)
        case "network" | "port":
            from xbuild.cli import networks  # off the start path

            networks.network(text) if key == "network" else networks.forward(text)
        case "kill_signal":
            from xbuild.cli.booting import signal_name  # off the start path

            signal_name(text)
        case "tmpfs":
            tmpfs(text)
        case "setenv":
            _variable(text)
        case "env_file":
            from xbuild.cli.env_file import read_env_file  # off the start path

            read_env_file(text)
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


def _check_mount(key: str, text: str) -> None:
    from xbuild.cli import mounts  # off the start path

    check = {
        "overlay": mounts.overlay,
        "overlay_ro": mounts.overlay_ro,
        "copy_in": mounts.copy_in,
        "copy_out": mounts.copy_out,
    }
    if key in check:
        check[key](text)
    else:
        mounts.inaccessible(text)


def _binfmt(value: str | None) -> BinfmtChoice:
    if value == "private":
        return "private"
    return "host" if value == "host" else "auto"


def _users(value: str | None) -> UsersChoice:
    return "identity" if value == "identity" else "auto"


def _native(value: str | None) -> NativeChoice:
    if value == "exact":
        return "exact"
    return "fast" if value == "fast" else "off"


def _capabilities(parsed: Parsed, key: str) -> tuple[str, ...]:
    return tuple(name for text in parsed.many(key) for name in capability_names(text))


def settings_beside(target: str) -> HostPath:
    """Return where a tree's or an image's own settings are: beside it, never in it."""
    return HostPath(os.path.realpath(on_host(target)) + SETTINGS_SUFFIX)


def _has_own_default() -> bool:
    places = own_profile_directories()
    return any(os.path.exists(f"{place}/{DEFAULT_PROFILE}.toml") for place in places)


def own_profile_directories() -> tuple[HostPath, ...]:
    """Return where a user and an administrator keep profiles, the stronger first."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    if not config.startswith("/"):
        config = os.path.join(os.environ.get("HOME", "/"), ".config")
    return (HostPath(f"{config}/xbuild/profiles"), HostPath("/etc/xbuild/profiles"))


def environment_of(parsed: Parsed) -> tuple[tuple[str, str], ...]:
    """Return what --env-file and --setenv say, in that order. Raises UsageError."""
    pairs: list[tuple[str, str]] = []
    if "env_file" in parsed.values:
        from xbuild.cli.env_file import read_env_file  # off the start path

        for path in parsed.many("env_file"):
            pairs += read_env_file(path)
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
