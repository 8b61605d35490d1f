from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from tests.installation import CHECKOUT
from tests.patience import PATIENCE_S
from xbuild import __version__
from xbuild.cli.group import COMMANDS, xbuild
from xbuild.cli.main import call_reporting
from xbuild.cli.output import visible
from xbuild.errors import CommandNotFound, UsageError, XbuildError

COMMAND_MODULES = {module for module, _ in COMMANDS.values()}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xbuild", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def modules_after(*arguments: str) -> set[str]:
    """Return which modules are loaded when ``xbuild ARGUMENTS`` is about to end."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('\\n'.join(sys.modules), file=sys.stderr))\n"
        f"sys.argv = ['xbuild', *{arguments!r}]\n"
        "from xbuild.cli.main import main\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", script]
    output = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE_S
    )
    return set(output.stderr.split())


def test_an_interrupt_while_a_command_is_loaded_ends_it() -> None:
    """A callback of the import system's is where Python would forget a KeyboardInterrupt."""
    script = """
import signal, sys

class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "xbuild.cli.run":
            Interrupted()

signal.signal(signal.SIGINT, signal.default_int_handler)
from xbuild.cli.main import main
sys.meta_path.insert(0, Finder())
sys.argv = ["xbuild", "run", "--help"]
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command(option: str) -> None:
    result = run(option)
    assert (result.returncode, result.stderr) == (0, "")
    for name, (_, text) in COMMANDS.items():
        assert name in result.stdout
        assert text in result.stdout


def test_help_imports_no_command() -> None:
    assert not modules_after("--help") & COMMAND_MODULES


def test_a_command_imports_no_other_command() -> None:
    assert modules_after("inspect", "--help") & COMMAND_MODULES == {"xbuild.cli.inspect"}


def test_run_does_without_click() -> None:
    loaded = modules_after("run", "/nonexistent")
    assert "xbuild.cli.run" in loaded
    assert not loaded & {"click", "rich", "elftools", "xbuild.cli.group"}


def test_every_command_of_the_table_is_there() -> None:
    for name in COMMANDS:
        result = CliRunner().invoke(xbuild, [name, "--help"])
        assert result.exit_code == 0, (name, result.output)


def test_version_names_python_and_kernel() -> None:
    result = run("--version")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        f"xbuild {__version__}",
        f"Python {sys.version.split()[0]}, Linux {os.uname().release}",
    ]


@pytest.mark.parametrize("arguments", [("inspekt",), ("--nonsense",), ("inspect", "--nonsense")])
def test_wrong_usage_exits_with_two_and_a_hint(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    message, hint = result.stderr.splitlines()
    assert message.startswith("xbuild: No such ")
    assert hint.startswith("hint: ")
    assert hint.endswith("--help")


def test_without_a_command_the_help_is_shown_as_an_error() -> None:
    result = run()
    assert (result.returncode, result.stdout) == (2, "")
    assert "Commands:" in result.stderr


def test_completion_knows_the_commands() -> None:
    result = run(_XBUILD_COMPLETE="bash_complete", COMP_WORDS="xbuild ins", COMP_CWORD="1")
    assert result.stdout.split() == ["plain,inspect"]


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def dispatch(_arguments: list[str]) -> int:
        raise error

    return dispatch


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (XbuildError("It broke", "mend it"), 125, "xbuild: It broke\nhint: mend it\n"),
        (XbuildError("It broke", "one\ntwo"), 125, "xbuild: It broke\nhint: one\nhint: two\n"),
        (UsageError("What?"), 2, "xbuild: What?\n"),
        (CommandNotFound("No x"), 127, "xbuild: No x\n"),
        (XbuildError("a\x1b[0m\nb\udcff"), 125, "xbuild: a\\x1b[0m\\nb\\xff\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_failures_become_text_and_a_status(
    error: BaseException, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_reporting(raising(error), []) == status
    assert capsys.readouterr() == ("", text)


def test_what_is_no_users_failure_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        call_reporting(raising(ZeroDivisionError()), [])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünï", "plain ünï"),
        ("a\tb\nc", r"a\tb\nc"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\udcff", r"\xff"),
        ("\u202e", r"\u202e"),
        ("\ud800", r"\ud800"),
    ],
)
def test_names_are_shown_on_one_line(text: str, shown: str) -> None:
    assert visible(text) == shown
