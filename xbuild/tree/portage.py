"""What a Gentoo tree says of itself in /etc/portage: make.conf, and the profile that it follows.

make.conf(5) looks like a shell's file and is none: Portage splits it into words by Python's shlex
and expands variables, and so is it read here. Nothing of it is executed. Off the start path.
"""

from __future__ import annotations

import re
import shlex

from xbuild.errors import TargetError
from xbuild.record import GuestPath, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from xbuild.tree.resolve import TreeReader

MAKE_CONF = (GuestPath("/etc/portage/make.conf"), GuestPath("/etc/make.conf"))
MAKE_PROFILE = (GuestPath("/etc/portage/make.profile"), GuestPath("/etc/make.profile"))
_LIMIT = 1 << 20  # bytes
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


class MakeConf(Record):
    """Variables with their values expanded, and notes on what was not followed."""

    values: Mapping[str, str]
    notes: tuple[str, ...] = ()


class PortageTree(Record):
    """``profile`` is the path below profiles/, such as default/linux/arm64/23.0; None for none."""

    make_conf: MakeConf
    profile: str | None

    @property
    def cflags(self) -> tuple[str, ...]:
        """The compiler's flags for C and C++, as words."""
        text = " ".join(self.make_conf.values.get(name, "") for name in ("CFLAGS", "CXXFLAGS"))
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
    notes: list[str] = []
    for path in files:
        made = parse_make_conf(_text(reader, path), values, f"{reader.label}{path}")
        values.update(made.values)
        notes += made.notes
    return PortageTree(MakeConf(values, tuple(notes)), profile)


def parse_make_conf(text: str, known: Mapping[str, str], label: str) -> MakeConf:
    """Read make.conf's text; ``known`` are variables of files before it. Raises TargetError."""
    values: dict[str, str] = {}
    notes: list[str] = []
    lexer = shlex.shlex(text, posix=True)
    lexer.wordchars += _WORD_LETTERS
    lexer.quotes = "\"'"
    line = 1
    try:
        while (word := lexer.get_token()) is not None:
            if word == "export":
                continue
            if word == "source":
                file = lexer.get_token()
                notes.append(f"{label} sources {file}, which is not followed")
                continue
            line = lexer.lineno
            if not _NAME.fullmatch(word) or lexer.get_token() != "=":
                raise _nonsense(label, line, f"not NAME=VALUE: {word[:40]!r}")
            value = lexer.get_token()
            if value is None:
                raise _nonsense(label, line, f"{word} has no value")
            values[word] = _expanded(value, {**known, **values})
    except ValueError as error:  # shlex: no closing quotation
        raise _nonsense(label, line, str(error).lower()) from error
    return MakeConf(values, tuple(notes))


def _expanded(value: str, known: Mapping[str, str]) -> str:
    joined = value.replace("\\\n", " ")
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
