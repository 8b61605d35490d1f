"""Manual pages from the commands themselves: text in man(7), one page for each command.

Pure: what is written where is the build's (hatch_build.py).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from xbuild.cli.group import LazyGroup

_OPTION_NAME = re.compile(r"(?<![\w-])(--?[a-zA-Z][\w-]*)")
_PROGRAM_SECTIONS = {
    "EXIT STATUS": (
        ("the command's own", "It ran."),
        ("128 + N", "It was ended by signal N."),
        ("124", "Time was up (--timeout, --idle-timeout)."),
        ("125", "xbuild failed: nothing ran, and nothing is left."),
        ("126, 127", "The command cannot be executed; it is not in the tree."),
        ("2", "The command line is wrong."),
    ),
    "ENVIRONMENT": (
        ("XDG_CACHE_HOME", "Where the cache is, instead of ~/.cache (xbuild cache list)."),
        ("XDG_CONFIG_HOME", "Where profiles of one's own are, instead of ~/.config."),
        ("XBUILD_DEBIAN_MIRROR", "The mirror for packages of Debian, instead of apt's sources."),
        ("XBUILD_UBUNTU_MIRROR", "The same for packages of Ubuntu."),
        ("XBUILD_UBUNTU_KEYRING", "The keys of Ubuntu's archive, where no package brings them."),
        ("http_proxy, https_proxy, no_proxy", "Proxies for downloads."),
        ("SSL_CERT_FILE", "The certificates that downloads trust."),
        ("NO_COLOR", "Set to anything, no colours are used."),
    ),
    "FILES": (
        ("TREE.xbuild.toml", "Settings beside a tree; see docs/profiles.md."),
        ("~/.config/xbuild/profiles, /etc/xbuild/profiles", "Profiles."),
    ),
}


def manual_pages(program: click.Group, version: str) -> Iterator[tuple[str, str]]:
    """Yield a file name and its text for the program and each command, groups' ones too."""
    sections = _PROGRAM_SECTIONS
    for path, command in walk_commands(program):
        name = "-".join(path)
        yield f"{name}.1", _page(path, command, version, sections)
        sections = {}


def walk_commands(
    command: click.Command, path: tuple[str, ...] = ("xbuild",)
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield each command with the words that call it, a group before its commands."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, name
            yield from walk_commands(child, (*path, name))


def _page(
    path: tuple[str, ...],
    command: click.Command,
    version: str,
    sections: dict[str, tuple[tuple[str, str], ...]],
) -> str:
    names = ["-h", "--help"]
    context = click.Context(command, info_name=" ".join(path), help_option_names=names)
    name = "-".join(path)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH {_quoted(name.upper())} 1 "" {_quoted(f"xbuild {version}")} "xbuild"',
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(_summary(command))}",
        ".SH SYNOPSIS",
        f".B {_escaped(' '.join(path))}",
        _escaped(usage),
        ".SH DESCRIPTION",
        *_paragraphs(inspect.cleandoc(command.help or "")),
    ]
    if isinstance(command, LazyGroup):
        rows = [(f"{name}-{child}(1)", text + ".") for child, text in command.short_helps()]
        lines += [".SH COMMANDS", *_terms(rows)]
    lines += [".SH OPTIONS", *_terms(_options(command, context))]
    lines += _paragraphs(inspect.cleandoc(command.epilog or ""))
    for title, rows_of_it in sections.items():
        lines += [f".SH {_quoted(title)}", *_terms(rows_of_it)]
    if len(path) > 1:
        parents = ["-".join(path[:end]) for end in range(len(path) - 1, 0, -1)]
        lines += [".SH SEE ALSO", ", ".join(f"\\fB{_escaped(p)}\\fR(1)" for p in parents)]
    return "\n".join(lines) + "\n"


def _summary(command: click.Command) -> str:
    first = inspect.cleandoc(command.help or "").partition("\n\n")[0]
    return " ".join(first.split()).rstrip(".")


def _options(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    records = (option.get_help_record(context) for option in command.get_params(context))
    return [record for record in records if record is not None and record[1]]  # arguments have ""


def _paragraphs(text: str) -> list[str]:
    lines = []
    for paragraph in filter(None, text.split("\n\n")):
        if paragraph.startswith("\b"):  # click's mark of lines that stay as they are
            lines += [".PP", ".nf", *map(_line, paragraph.splitlines()[1:]), ".fi"]
        else:
            lines += [".PP", *map(_line, paragraph.splitlines())]
    return lines


def _terms(rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> list[str]:
    lines = []
    for term, text in rows:
        lines += [
            ".TP",
            _with_bold_names(term),
            *(map(_line, text.splitlines()) if text else ("\\&",)),
        ]
    return lines


def _with_bold_names(term: str) -> str:
    pieces = _OPTION_NAME.split(term)
    if len(pieces) == 1:
        return f"\\fB{_escaped(term)}\\fR"
    return "".join(
        f"\\fB{_escaped(piece)}\\fR" if number % 2 else _escaped(piece)
        for number, piece in enumerate(pieces)
    )


def _line(text: str) -> str:
    escaped = _escaped(text.strip())
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', "\\(dq") + '"'
