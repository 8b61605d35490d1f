"""``xbuild completion``: what makes a shell complete xbuild's command lines.

The scripts are click's: they call the program itself, so that they know each of its versions.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import ShellComplete, get_completion_class

from xbuild.cli.output import note
from xbuild.errors import UsageError
from xbuild.record import HostPath

PLACES = {
    "bash": "bash-completion/completions/xbuild",
    "zsh": "zsh/site-functions/_xbuild",
    "fish": "fish/vendor_completions.d/xbuild.fish",
}
"""Where each shell looks for it, below share/ and $XDG_DATA_HOME."""

# click's own test holds at the first call alone: at the second nothing would be completed.
_ZSH_AUTOLOADED = ("$zsh_eval_context[-1] == loadautofunc", "$funcstack[1] == _xbuild")
_ZSH_LINES = "fpath=({directory} $fpath); autoload -Uz compinit && compinit"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", required=False, type=click.Choice(tuple(PLACES)))
@click.option("--install", is_flag=True, help="Write it to where your shell looks, and say where.")
def command(shell: str | None, install: bool) -> None:
    """Print what makes SHELL complete xbuild's command lines: by default your login shell.

    To try it: eval "$(xbuild completion bash)", or xbuild completion fish | source. To keep it:
    xbuild completion --install. A package of xbuild has it installed already.
    """
    chosen = shell or os.path.basename(os.environ.get("SHELL", ""))
    if chosen not in PLACES:
        raise UsageError(
            f"No completion for the shell {chosen!r}", f"name one: {', '.join(PLACES)}"
        )
    if not install:
        click.echo(script_for(chosen), nl=False)
        return
    path = _write(chosen)
    click.echo(f"{path}: new shells complete xbuild")
    if chosen == "bash":
        note("bash reads it where the package bash-completion is installed")
    if chosen == "zsh":
        lines = _ZSH_LINES.format(directory=os.path.dirname(path))
        note(f"zsh looks there if ~/.zshrc says: {lines}")


def script_for(shell: str) -> str:
    """Return the script that a shell reads."""
    from xbuild.cli.group import COMPLETION_VARIABLE, xbuild

    kind = get_completion_class(shell)
    assert kind is not None, shell
    # Not bash's own source(), which runs the bash that is there to see whether it is too old.
    text = ShellComplete.source(kind(xbuild, {}, "xbuild", COMPLETION_VARIABLE))
    return text.replace(*_ZSH_AUTOLOADED).rstrip("\n") + "\n"


def _write(shell: str) -> HostPath:
    base = os.environ.get("XDG_DATA_HOME", "")
    if not base.startswith("/"):
        base = os.path.join(os.path.expanduser("~"), ".local", "share")
    path = HostPath(os.path.join(base, PLACES[shell]))
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(script_for(shell))
    except OSError as error:
        raise UsageError(
            f"Cannot write {path}: {error.strerror}", "print it instead, without --install"
        ) from error
    return path
