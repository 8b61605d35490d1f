"""Command lines of xbuild that documents show: parsed by the real parsers, and typed."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click

from tests.installation import CHECKOUT
from tests.runs import Runner
from xbuild.cli import options
from xbuild.cli.exec import EXEC_OPTIONS
from xbuild.cli.group import xbuild
from xbuild.cli.manual import walk_commands
from xbuild.cli.start import START_OPTIONS
from xbuild.record import HostPath, Record

DOCUMENTS = (Path(CHECKOUT) / "README.md", *sorted((Path(CHECKOUT) / "docs").glob("*.md")))
COMMANDS = {" ".join(path[1:]): command for path, command in walk_commands(xbuild)}
"""Each command by the words after ``xbuild``; "" is xbuild itself."""

_OWN_PARSERS = {
    "run": options.OPTIONS,
    "exec": EXEC_OPTIONS,
    "start": START_OPTIONS,
    "hold": START_OPTIONS,
    "unit": START_OPTIONS,
}
_WHOLE_IN_TEXT = ("migration.md",)
_FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.M | re.S)
_INLINE = re.compile(r"`([^`\n]+)`")
_ENDS = frozenset(("|", "||", "&", "&&", ";", ">", ">>", "<", "<<", "2>", ")"))
_BEFORE = frozenset(("$", "#", "sudo", "exec", "if", "!", "-"))


class Shown(Record):
    """A command line that a document shows: the words after ``xbuild``.

    One in running text need not be whole: `xbuild commit` names the command.
    """

    document: str
    words: tuple[str, ...]
    is_whole: bool

    def __str__(self) -> str:
        return f"{self.document}: xbuild {shlex.join(self.words)}"


def blocks(text: str, kind: str) -> list[str]:
    """Return the fenced blocks of a kind, "" for those without."""
    return [found["body"] for found in _FENCE.finditer(text) if found["kind"] == kind]


def commands(text: str) -> list[str]:
    """Return what is typed in a text's console blocks, line by line."""
    lines = (line for block in blocks(text, "console") for line in block.splitlines())
    return [line[2:] for line in lines if line.startswith("$ ")]


def make_home(runner: Runner, place: HostPath) -> None:
    """Put xbuild on the PATH that ``type_line`` has there."""
    program = Path(place, "bin/xbuild")
    program.parent.mkdir()
    program.symlink_to(runner.xbuild[0])


def type_line(
    runner: Runner, home: HostPath, line: str, *, cwd: str, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Have a shell do what is printed, in a home directory that ``make_home`` made one."""
    environment = runner.user.environment()
    environment |= {"HOME": home, "PATH": f"{home}/bin:{environment['PATH']}"}
    return runner.user.run(["bash", "-c", line], env=environment, cwd=cwd, timeout_s=timeout_s)


def shown_commands(document: Path) -> Iterator[Shown]:
    """Yield the command lines of a document's code blocks and of its text."""
    text = document.read_text(encoding="utf-8")
    for block in _FENCE.finditer(text):
        for line in block["body"].replace("\\\n", " ").splitlines():
            yield from _commands_of(document.name, line, is_whole=True)
    is_whole = document.name in _WHOLE_IN_TEXT
    for span in _INLINE.findall(_FENCE.sub("", text)):
        if span.startswith(("xbuild ", "sudo xbuild ")) and not re.search(r"[|…\[]", span):
            yield from _commands_of(document.name, span, is_whole=is_whole)


def inline_options(document: Path) -> set[str]:
    """Return the options that stand by themselves in a document's text: ``--bind``."""
    text = _FENCE.sub("", document.read_text(encoding="utf-8"))
    spans = (span for span in _INLINE.findall(text) if span.startswith("--"))
    return {re.split(r"[ =|\[,]", span)[0] for span in spans}


def known_options() -> set[str]:
    """Return the names of the options of all commands."""
    return {"--"}.union(*map(_options_of, COMMANDS.values()))


def parse(shown: Shown) -> str:
    """Parse a command line; return the command that it calls. Raises UsageError, ClickException.

    Of one that need not be whole, the command and the options have to be there.
    """
    name, rest = _split(shown.words)
    command = COMMANDS[name]
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        raise click.UsageError(f"no command {rest[0]!r} in {name!r}")
    if not shown.is_whole:
        _require_known(command, rest)
    elif name in _OWN_PARSERS:
        words = [word for word in rest if word != "--openrc"] if name == "unit" else rest
        options.parse(words, _OWN_PARSERS[name])
    else:
        with contextlib.suppress(click.exceptions.Exit):  # --help, --version
            command.make_context(name, rest)
    return name


def _require_known(command: click.Command, words: list[str]) -> None:
    known = _options_of(command) | {"--openrc"}
    own = words[: words.index("--")] if "--" in words else words
    for word in own:
        if word.startswith("--") and word.partition("=")[0] not in known:
            raise click.UsageError(f"no option {word}")


def _options_of(command: click.Command) -> set[str]:
    parameters = command.get_params(click.Context(command, help_option_names=["-h", "--help"]))
    return {name for each in parameters for name in (*each.opts, *each.secondary_opts)}


def _split(words: tuple[str, ...]) -> tuple[str, list[str]]:
    name = ""
    for position, word in enumerate(words):
        longer = f"{name} {word}".strip()
        if longer not in COMMANDS:
            return name, list(words[position:])
        name = longer
    return name, []


def _commands_of(document: str, line: str, *, is_whole: bool) -> Iterator[Shown]:
    """Yield the calls of xbuild in a line of shell: at its start, and behind && and the like."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return  # output, not a command
    start = True
    for position, word in enumerate(words):
        if word == "xbuild" and start:
            rest = words[position + 1 :]
            end = next((n for n, each in enumerate(rest) if each in _ENDS), len(rest))
            if not any(each.startswith("[") for each in rest[:end]):  # a synopsis
                yield Shown(document, tuple(rest[:end]), is_whole)
        start = (start and (word in _BEFORE or "=" in word)) or word in _ENDS
