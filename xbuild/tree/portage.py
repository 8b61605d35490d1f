"""What a Gentoo tree says of itself in /etc/portage: make.conf, and the profile that it follows.

make.conf(5) looks like a shell's file and is none: Portage splits it into words by Python's shlex
and expands variables, and so is it read here. Nothing of it is executed. Off the start path.
"""

from __future__ import annotations

import posixpath
import re
import shlex

from xbuild.errors import TargetError
from xbuild.record import GuestPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from xbuild.tree.resolve import TreeReader

MAKE_CONF = (GuestPath("/etc/portage/make.conf"), GuestPath("/etc/make.conf"))
MAKE_PROFILE = (GuestPath("/etc/portage/make.profile"), GuestPath("/etc/make.profile"))
_LIMIT = 1 << 20  # bytes
_SOURCES_LIMIT = 100  # files, however often: two that source two each are a million soon
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_WORD_LETTERS = "~!@#$%*_\\:;?,./-+{}^[]()<>|&"
_KEYWORDS = {  # of Gentoo's profiles, where they are not a name that an architecture goes by
    "amd64": ("x86_64",),
    "arm": ("arm", "armeb"),
    "arm64": ("aarch64", "aarch64_be"),
    "loong": ("loongarch64",),
    "mips": ("mips", "mipsel", "mips64", "mips64el", "mipsn32", "mipsn32el"),
    "ppc": ("ppc",),
    "ppc64": ("ppc64", "ppc64le"),
    "riscv": ("riscv64", "riscv32"),
    "s390": ("s390x", "s390"),
    "sparc": ("sparc64", "sparc", "sparc32plus"),
    "x86": ("i386",),
}


class PortageTree(Record):
    """``make_conf`` are variables, their values expanded.

    ``profile`` is the path below profiles/, such as default/linux/arm64/23.0; None for none.
    """

    make_conf: Mapping[str, str]
    profile: str | None

    @property
    def cflags(self) -> tuple[str, ...]:
        """The compiler's flags for C and C++, as words."""
        text = " ".join(self.make_conf.get(name, "") for name in ("CFLAGS", "CXXFLAGS"))
        return tuple(dict.fromkeys(text.split()))


def read_portage_tree(reader: TreeReader) -> PortageTree:
    """Read what a Gentoo tree says. Raises TargetError for none, or a make.conf that is damaged."""
    profile = _read_profile(reader)
    files = [path for place in MAKE_CONF for path in _files_of(reader, place)]
    if profile is None and not files:
        raise TargetError(
            f"{reader.label} is no Gentoo tree: it has no {MAKE_CONF[0]} and no {MAKE_PROFILE[0]}",
            "xbuild inspect tells what it is; --profile build is for any tree",
        )
    values: dict[str, str] = {}
    room = iter(range(_SOURCES_LIMIT))
    for path in files:
        values.update(_values_of(reader, path, values, (path,), room))
    return PortageTree(values, profile)


def _values_of(
    reader: TreeReader,
    path: GuestPath,
    known: Mapping[str, str],
    inside: tuple[GuestPath, ...],
    room: Iterator[int],
) -> Mapping[str, str]:
    """Read one file; ``inside`` are those that source it, and itself; ``room`` is for others."""

    def source(name: str, so_far: Mapping[str, str]) -> Mapping[str, str]:
        file = GuestPath(posixpath.normpath(posixpath.join(posixpath.dirname(path), name)))
        if file in inside:
            raise ValueError(f"sources {file}, which it is a part of")
        if not _is_there(reader, file):
            raise ValueError(f"sources {file}, which the tree does not have")
        if next(room, None) is None:
            raise ValueError(f"sources {file}, after {_SOURCES_LIMIT} files")
        return _values_of(reader, file, so_far, (*inside, file), room)

    return parse_make_conf(_text(reader, path), known, f"{reader.label}{path}", source)


def parse_make_conf(
    text: str,
    known: Mapping[str, str],
    label: str,
    source: Callable[[str, Mapping[str, str]], Mapping[str, str]],
) -> Mapping[str, str]:
    """Read make.conf's text; ``known`` are variables of files before it. Raises TargetError.

    ``source`` returns those of a file that is sourced, given those so far, or raises ValueError.
    """
    values: dict[str, str] = {}
    lexer = shlex.shlex(text, posix=True)
    lexer.wordchars += _WORD_LETTERS
    lexer.quotes = "\"'"
    line = 1
    everything = dict(known)
    room = _LIMIT - sum(map(len, known.values()))
    try:
        while (word := lexer.get_token()) is not None:
            if word == "export":
                continue
            if word == "source":
                line = lexer.lineno
                sourced = source(_expanded(lexer.get_token() or "", everything, room), everything)
                values.update(sourced)
                everything.update(sourced)
                room -= sum(map(len, sourced.values()))
                continue
            line = lexer.lineno
            if not _NAME.fullmatch(word) or lexer.get_token() != "=":
                raise _nonsense(label, line, f"not NAME=VALUE: {word[:40]!r}")
            value = lexer.get_token()
            if value is None:
                raise _nonsense(label, line, f"{word} has no value")
            values[word] = everything[word] = _expanded(value, everything, room)
            room -= len(values[word])
    except ValueError as error:  # of shlex: no closing quotation
        message = str(error)
        raise _nonsense(label, line, message[:1].lower() + message[1:]) from error
    return values


def _expanded(value: str, known: Mapping[str, str], room: int) -> str:
    """Expand the variables in a value. Raises ValueError where they double and double again."""
    joined = value.replace("\\\n", " ")
    found = (known.get(each[1] or each[2], "") for each in _VARIABLE.finditer(joined))
    if len(joined) + sum(map(len, found)) > room:
        raise ValueError(f"its values have more than {_LIMIT} characters")
    return _VARIABLE.sub(lambda found: known.get(found[1] or found[2], ""), joined)


def _nonsense(label: str, line: int, what: str) -> TargetError:
    return TargetError(
        f"{label}:{line}: {what}", "Portage would not read it either: make.conf(5); correct it"
    )


def is_of_profile(profile: str, arch: str) -> bool:
    """Tell whether programs of ``arch`` are what a profile's path names, where it names any."""
    parts = profile.split("/")
    named = [keyword for keyword in _KEYWORDS if keyword in parts]
    return not named or any(arch in _KEYWORDS[keyword] for keyword in named)


def _read_profile(reader: TreeReader) -> str | None:
    for place in MAKE_PROFILE:
        try:
            target = reader.link_at(place)
        except TargetError:
            continue
        _, marker, below = target.partition("profiles/")
        return below.strip("/") if marker else target.strip("/")
    return None


def _files_of(reader: TreeReader, place: GuestPath) -> tuple[GuestPath, ...]:
    """Return make.conf, or what is in it where it is a directory, in Portage's order."""
    try:
        names = reader.listdir(place)
    except TargetError:
        return (place,) if _is_there(reader, place) else ()
    chosen = sorted(name for name in names if not name.startswith(".") and name[-1:] != "~")
    return tuple(GuestPath(f"{place}/{name}") for name in chosen)


def _is_there(reader: TreeReader, place: GuestPath) -> bool:
    try:
        reader.resolve(place)
    except TargetError:
        return False
    return True


def _text(reader: TreeReader, path: GuestPath) -> str:
    content = reader.read(path, _LIMIT)
    if b"\0" in content:
        raise _nonsense(
            f"{reader.label}{path}", content[: content.index(b"\0")].count(b"\n") + 1, "not text"
        )
    return content.decode("utf-8", "replace")
