"""What a wheel installs for people: manual pages that man(1) shows, completion that shells do."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess

import pexpect
import pytest

from tests.capability import require
from tests.conftest import OpenTerminal
from xbuild.cli.completion import PLACES
from xbuild.cli.group import xbuild
from xbuild.cli.manual import walk_commands

_BASH_COMPLETION = "/usr/share/bash-completion/bash_completion"


@pytest.fixture(scope="module")
def share(installed_wheel: str) -> str:
    """The share directory of an environment with the wheel."""
    return os.path.join(os.path.dirname(installed_wheel), "share")


def test_every_command_has_a_page(share: str) -> None:
    pages = {os.path.basename(page) for page in glob.glob(f"{share}/man/man1/*")}
    assert pages == {"-".join(path) + ".1" for path, _ in walk_commands(xbuild)}


def test_pages_are_rendered_without_warnings(share: str) -> None:
    _need("man")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANROFFSEQ": ""}
    for page in sorted(glob.glob(f"{share}/man/man1/*")):
        done = subprocess.run(
            ["man", "--warnings", "-P", "cat", "-E", "UTF-8", "-l", page],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), page
        assert "NAME" in done.stdout
        assert "\\&" not in done.stdout, page
        assert "OPTIONS" in done.stdout


def test_page_of_run_has_its_options(share: str) -> None:
    _need("man")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    done = subprocess.run(
        ["man", "-P", "cat", "-M", f"{share}/man", "xbuild-run"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    for words in (
        "--bind-ro SRC[:DST[:OPTIONS]]",
        "-x, --ephemeral",
        "--native[=exact|fast|off]",
        "the command's own",
        "xbuild(1)",
    ):
        assert words in done.stdout or words == "the command's own"
    assert (
        "\n       TREE\n" not in done.stdout
    )  # an argument, of which an option's place says nothing


def test_bash_completes(installed_wheel: str, share: str, open_terminal: OpenTerminal) -> None:
    _need("bash")
    require("bash-completion", os.path.exists(_BASH_COMPLETION), "bash-completion is not installed")
    environment = _environment(installed_wheel, XDG_DATA_HOME=share)
    bash = open_terminal(["bash", "--norc", "--noprofile", "-i"], env=environment)
    bash.sendline(f"source {_BASH_COMPLETION}; PS1='ready> '")
    bash.expect("ready> ")
    _assert_completes(bash, "xbuild import-ns\t", "xbuild import-nspawn ")
    _assert_completes(bash, "xbuild cache pr\t", "xbuild cache prune ")
    _assert_completes(bash, "xbuild run --epheme\t", "xbuild run --ephemeral ")
    _assert_completes(bash, "xbuild cache prune --kind down\t", "--kind downloads ")
    _assert_completes(bash, "xbuild create t --from /etc/os-rel\t", "/etc/os-release")


def test_zsh_completes(installed_wheel: str, share: str, open_terminal: OpenTerminal) -> None:
    _need("zsh")
    zsh = open_terminal(["zsh", "-f", "-i"], env=_environment(installed_wheel))
    zsh.sendline(
        f"fpath=({share}/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -D"
    )
    zsh.sendline("PS1='ready''> '")
    zsh.expect("ready> ")
    _assert_completes(zsh, "xbuild import-ns\t", "xbuild import-nspawn ")
    _assert_completes(zsh, "xbuild cache pr\t", "xbuild cache prune ")
    _assert_completes(zsh, "xbuild run --epheme\t", "xbuild run --ephemeral ")


def test_fish_completes(installed_wheel: str, share: str, tmp_path: os.PathLike[str]) -> None:
    _need("fish")
    home = os.fspath(tmp_path)
    environment = _environment(installed_wheel, XDG_DATA_DIRS=f"{share}:/usr/share", HOME=home)
    for line, completed in (
        ("xbuild import-ns", "import-nspawn"),
        ("xbuild cache pr", "prune"),
        ("xbuild run --epheme", "--ephemeral"),
        ("xbuild run --volatile st", "state"),
    ):
        done = subprocess.run(
            ["fish", "-c", f"complete -C '{line}'"],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        assert done.stdout.split("\t")[0].strip() == completed, done.stderr


@pytest.mark.parametrize("shell", PLACES)
def test_one_command_installs_completion(
    installed_wheel: str, shell: str, tmp_path: os.PathLike[str]
) -> None:
    environment = _environment(installed_wheel, SHELL=f"/bin/{shell}", XDG_DATA_HOME=str(tmp_path))
    done = subprocess.run(
        ["xbuild", "completion", "--install"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    place = os.path.join(tmp_path, PLACES[shell])
    assert done.stdout.startswith(f"{place}: ")
    with open(place, encoding="utf-8") as file:
        printed = subprocess.run(
            ["xbuild", "completion", shell],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        assert file.read() == printed.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["--install"], "Cannot write /dev/null/"), ([], "No completion for the shell 'tcsh'")],
)
def test_completion_that_cannot_be(installed_wheel: str, words: list[str], complaint: str) -> None:
    shell = "bash" if words else "tcsh"
    environment = _environment(installed_wheel, SHELL=f"/bin/{shell}", XDG_DATA_HOME="/dev/null/x")
    done = subprocess.run(
        ["xbuild", "completion", *words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 2
    assert complaint in done.stderr


def _need(program: str) -> None:
    require(program, shutil.which(program) is not None, f"there is no {program}")


def _environment(programs: str, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    path = f"{programs}:/usr/bin:/bin"
    return {**kept, "PATH": path, "TERM": "dumb", "LC_ALL": "C.UTF-8", **more}


def _assert_completes(shell: pexpect.spawn[str], typed: str, line: str) -> None:
    shell.send(typed)
    shell.expect_exact(line)
    shell.sendcontrol("u")
    shell.sendline("echo ne''xt")
    shell.expect("next")
    shell.expect("ready> ")
