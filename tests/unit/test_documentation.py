"""What documents show is what the program takes; what the program has, documents tell."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import click
import pytest

from tests.documented import (
    COMMANDS,
    DOCUMENTS,
    Shown,
    inline_options,
    known_options,
    parse,
    shown_commands,
)
from tests.installation import CHECKOUT
from xbuild.cli.group import xbuild
from xbuild.cli.manual import manual_pages
from xbuild.errors import UsageError

OF_THE_BENCH = {"--architecture", "--variants"}
OF_COMPILERS = {"--target"}
OF_TOOLS_BEFORE = "migration.md"
SOURCES = "".join(file.read_text() for file in (Path(CHECKOUT) / "xbuild").rglob("*.py"))
SHOWN = [shown for document in DOCUMENTS for shown in shown_commands(document)]


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_shown_command_is_understood(shown: Shown) -> None:
    try:
        parse(shown)
    except (UsageError, click.ClickException) as error:
        pytest.fail(f"{shown}: {getattr(error, 'message', error)}", pytrace=False)


@pytest.mark.parametrize(
    "document",
    [document for document in DOCUMENTS if document.name != OF_TOOLS_BEFORE],
    ids=lambda document: document.name,
)
def test_options_that_text_names_are_no_slips(document: Path) -> None:
    """Text names options of other programs as well: those that are nearly one of ours are meant."""
    known = known_options()
    unknown = inline_options(document) - known - OF_THE_BENCH - OF_COMPILERS
    slips = {name: difflib.get_close_matches(name, known, cutoff=0.85) for name in unknown}
    assert {name: meant for name, meant in slips.items() if meant} == {}


def test_migration_answers_every_row() -> None:
    (page,) = (document for document in DOCUMENTS if document.name == OF_TOOLS_BEFORE)
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    answers = [row.rpartition(" | ")[2] for row in rows if " | xbuild |" not in row]
    known = ("`xbuild ", "`sudo xbuild ", "not needed", "profile")
    assert len(answers) > 60
    assert [answer for answer in answers if not any(word in answer for word in known)] == [
        "---|"
    ] * 0


def test_every_command_is_shown_somewhere() -> None:
    called = {_called(shown) for shown in SHOWN}
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    missing = [name for name in COMMANDS if name not in called and f"xbuild {name}" not in text]
    groups = [name for name, command in COMMANDS.items() if isinstance(command, click.Group)]
    assert sorted(set(missing) - set(groups)) == []


def test_groups_say_in_one_line_what_each_command_does() -> None:
    groups = {name: each for name, each in COMMANDS.items() if isinstance(each, click.Group)}
    assert len(groups) > 5
    listed = {
        line
        for name, group in groups.items()
        for line in group.get_help(click.Context(group, info_name=name))
        .partition("\nCommands:\n")[2]
        .splitlines()
    }
    assert {line for line in listed if line.endswith(".")} == set()


def test_every_schema_is_described() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    named = set(re.findall(r'SCHEMA = "(xbuild\.[\w.-]+/\d+)"', SOURCES))
    assert len(named) > 10
    assert sorted(name for name in named if f"`{name}`" not in text) == []


def test_manual_has_the_variables_that_are_read() -> None:
    page = dict(manual_pages(xbuild, "0"))["xbuild.1"]
    named = set(re.findall(r'"(XBUILD_[A-Z_]+)"', SOURCES))
    assert named
    assert sorted(name for name in named if name not in page) == []


def test_wrong_command_lines_are_found(tmp_path: Path) -> None:
    """The test itself: what it reads from a document, and that it can fail."""
    page = tmp_path / "page.md"
    page.write_text(
        "```\n$ sudo xbuild run --nonsense ~/pi -- ls # why\nxbuild: an error\n"
        "$ A=1 xbuild ps && xbuild image grown pi.img | cat\n```\nand `xbuild stop pi`, `--bin`.\n"
    )
    shown = list(shown_commands(page))
    assert [each.words for each in shown] == [
        ("run", "--nonsense", "~/pi", "--", "ls"),
        ("ps",),
        ("image", "grown", "pi.img"),
        ("stop", "pi"),
    ]
    assert parse(shown[1]) == "ps"
    for wrong in (shown[0], shown[2]):
        with pytest.raises((UsageError, click.UsageError)):
            parse(wrong)
    assert inline_options(page) - known_options() == {"--bin"}


def _called(shown: Shown) -> str:
    try:
        return parse(shown)
    except (UsageError, click.ClickException):
        return ""
