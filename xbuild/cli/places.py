"""Places on the command line: paths of the host and of the tree, binds and tmpfs, parsed once."""

from __future__ import annotations

import os

from xbuild.errors import UsageError
from xbuild.plan.request import BindRequest, TmpfsRequest
from xbuild.record import GuestPath, HostPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.cli.options import Parsed
    from xbuild.plan.request import IdmapChoice

_MODE_LIMIT = 0o7777
OPTIONAL = "-"  # before a path: do without it where it is not there
_BIND_OPTIONS = (
    *("ro", "rw", "rbind", "norbind", "idmap", "noidmap", "exec", "noexec", "suid", "nosuid"),
    *("nodev", "mkdir", "existing"),
)
# What of tmpfs(5) is a number, and what may follow it.
_TMPFS_NUMBERS = {"size": "kKmMgGtTpPeE%", "nr_blocks": "kKmMgG", "nr_inodes": "kKmMgG"}
_ATTRIBUTES = ("ro", "rw", "exec", "noexec", "nosuid", "nodev")  # of a mount, not of tmpfs(5)


def on_host(path: str) -> HostPath:
    """Return an absolute path; its symlinks are left for who follows it."""
    try:
        return HostPath(os.path.abspath(path))
    except FileNotFoundError as error:
        raise UsageError(
            f"Cannot tell what {path} is relative to: the working directory was removed",
            "cd somewhere, or begin it with a slash",
        ) from error


def binds(parsed: Parsed) -> tuple[BindRequest, ...]:
    """Return what ``--bind`` and ``--bind-ro`` say. Raises UsageError."""
    writable = [bind(text, read_only=False) for text in parsed.many("bind")]
    read_only = [bind(text, read_only=True) for text in parsed.many("bind_ro")]
    return tuple(each for each in (*writable, *read_only) if each is not None)


def bind(text: str, *, read_only: bool) -> BindRequest | None:
    """Parse ``[-]SRC[:DST[:OPTIONS]]``, the options being systemd-nspawn's and two more.

    None where ``-`` leaves out a source that is not there (systemd.exec(5)). Raises UsageError.
    """
    source, destination, given, *more = [*split_colons(text.removeprefix(OPTIONAL)), "", ""]
    options = [word for word in given.split(",") if word]
    if any(more) or not set(options) <= set(_BIND_OPTIONS):
        raise UsageError(
            f"Not a bind: {text}",
            f"SRC[:DST[:OPTIONS]], options {', '.join(_BIND_OPTIONS)}; a colon in a path is \\:",
        )
    if not source:
        raise UsageError(f"A bind without a source: {text}", "SRC[:DST]")
    path = on_host(os.path.expanduser(source))
    if text.startswith(OPTIONAL) and not os.path.exists(path):
        return None
    inside = guest_path(destination, "--bind") if destination else GuestPath(path)
    idmap: IdmapChoice = "auto"
    if said := _last(options, "idmap", "noidmap"):
        idmap = "idmap" if said == "idmap" else "noidmap"
    return BindRequest(
        path,
        inside,
        read_only or _last(options, "ro", "rw") == "ro",
        recursive=_last(options, "norbind", "rbind") != "norbind",
        idmap=idmap,
        noexec=_last(options, "noexec", "exec") == "noexec",
        nosuid=_last(options, "suid", "nosuid") != "suid",
        make_source="mkdir" in options,
        only_existing="existing" in options,
    )


def _last(options: list[str], *names: str) -> str | None:
    """Return which of these options was said last: it counts."""
    said = [option for option in options if option in names]
    return said[-1] if said else None


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
    """Return an absolute path inside the tree; ``option`` is whose value it is."""
    if not text.startswith("/"):
        raise UsageError(
            f"{option} takes an absolute path inside the tree, not {text!r}",
            "it begins with a slash, which is the tree's root",
        )
    return GuestPath(text)


def tmpfs(text: str) -> TmpfsRequest:
    """Parse what to mount where; options are those of tmpfs and of mounts. Raises UsageError."""
    destination, _, given = text.partition(":")
    options: list[tuple[str, str | None]] = []
    attributes: list[str] = []
    mode = 0o1777
    for word in filter(None, given.split(",")):
        key, equals, value = word.partition("=")
        if key == "mode":
            mode = _octal(value, text)
        elif word in _ATTRIBUTES:
            attributes.append(word)
        else:
            _check_tmpfs_option(key, value, text)
            options.append((key, value if equals else None))
    return TmpfsRequest(
        guest_path(destination, "--tmpfs"),
        tuple(options),
        mode,
        read_only=_last(attributes, "ro", "rw") == "ro",
        noexec=_last(attributes, "noexec", "exec") == "noexec",
    )


def _check_tmpfs_option(key: str, value: str, text: str) -> None:
    """Raise UsageError for a number that tmpfs(5) would not take, as far as is plain."""
    if key in _TMPFS_NUMBERS:
        digits = value[:-1] if value[-1:] in tuple(_TMPFS_NUMBERS[key]) else value
        if not digits.isascii() or not digits.isdigit():
            raise UsageError(
                f"Not a number for {key} in --tmpfs {text}: {value!r}",
                "such as size=2g, size=50%, nr_inodes=100k",
            )


def _octal(value: str, text: str) -> int:
    is_octal = value != "" and not value.strip("01234567")
    if not is_octal or int(value, 8) > _MODE_LIMIT:
        raise UsageError(f"Not an octal mode in --tmpfs {text}: {value!r}", "such as mode=1777")
    return int(value, 8)
