"""``xbuild unit``: what starts a container with the machine, for systemd and for OpenRC."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

import click

from xbuild.cli.options import OPTIONS, parse
from xbuild.cli.output import note
from xbuild.cli.settings import build_request
from xbuild.cli.start import NOT_DETACHED, START_OPTIONS
from xbuild.cli.usage import build_command_of, print_help_of
from xbuild.errors import UsageError
from xbuild.image.recognise import is_image
from xbuild.plan.lifecycle import KILL_TIMEOUT_S, default_name
from xbuild.sandbox.listing import find
from xbuild.tree.resolve import DirectoryReader

if TYPE_CHECKING:
    from xbuild.plan.request import Request

SUMMARY = "Print a unit of systemd's, or a script of OpenRC's, that runs COMMAND in TREE."
EPILOG = """\
By default the unit; --openrc, the first word, prints the script. TREE may be the name of a running
container, to have it started as it was. The options are those of xbuild start; what TREE's own
settings and profiles say is looked up at each start. Paths become absolute.
"""
_OPENRC = "--openrc"
_OF_A_RUN = {"dry_run", "json"}  # refused with a word on what they are for
_SHOWN = tuple(option for option in START_OPTIONS if option.key not in _OF_A_RUN)
_MARGIN_S = 5.0  # from xbuild's own SIGKILL to that of the service manager
_UNIT = """\
# {path}
# systemctl daemon-reload && systemctl enable --now {name}.service
[Unit]
Description=Container {name} on {tree}
After=network-online.target local-fs.target
Wants=network-online.target
RequiresMountsFor={mounts}

[Service]
ExecStart={command}
KillMode=mixed
TimeoutStopSec={stop_s:g}
Restart=on-failure
RestartPreventExitStatus=2 125 126 127
Delegate=yes

[Install]
WantedBy=multi-user.target
"""
_SCRIPT = """\
#!/sbin/openrc-run
# /etc/init.d/{name}
# chmod +x /etc/init.d/{name} && rc-update add {name} default && rc-service {name} start
description={description}
command={program}
command_args={arguments}
command_background=true
pidfile="/run/${{RC_SVCNAME}}.pid"
output_log="/var/log/${{RC_SVCNAME}}.log"
error_log="/var/log/${{RC_SVCNAME}}.log"
retry="TERM/{stop_s:.0f}/KILL/5"

depend() {{
	need localmount
	use net
	after bootmisc
}}
"""


_WANTED = "xbuild unit [--openrc] TREE -- COMMAND, or --boot TREE"


def main(arguments: list[str]) -> int:
    """Run the command line after ``xbuild unit``. Raises UsageError, ProfileError, TargetError."""
    words = list(arguments)
    is_script = words[:1] == [_OPENRC]
    if is_script:
        del words[0]
    parsed = parse(words, START_OPTIONS)
    if "help" in parsed.flags:
        print_help_of(build_command())
        return 0
    if not parsed.target:
        raise UsageError("No tree was named", "xbuild unit [--openrc] [OPTIONS] TREE [--] COMMAND")
    if parsed.flags & _OF_A_RUN:
        raise UsageError(
            "--dry-run and --json are for a run", "xbuild run --dry-run TREE -- COMMAND"
        )
    is_there, is_path = os.path.exists(parsed.target), "/" in parsed.target
    if not is_there and not parsed.command and "boot" not in parsed.flags:
        if is_path:
            raise UsageError(f"A service on {parsed.target} needs a command", _WANTED)
        words = _words_of(parsed.target)
        parsed = parse(words, START_OPTIONS)
    elif not is_there:
        note(f"{parsed.target} is not there now: the service fails unless it is when it starts")
    if parsed.target is None or not (parsed.command or "boot" in parsed.flags):
        raise UsageError("A service needs a command", _WANTED)
    place = words.index(parsed.target)
    given = _absolute(words[:place])
    request = build_request(parsed)
    if is_there and not os.path.isdir(request.target) and not is_image(request.target):
        DirectoryReader(request.target).close()  # says what it is instead
    if not request.target.isprintable():
        raise UsageError(
            f"A service cannot name {request.target}: it has control characters",
            "give the tree another name: mv",
        )
    name = request.name or default_name(request.target)
    if request.name is None:
        given = ["--name", name, *given]
    tail = _absolute(words[place + 1 : len(words) - len(parsed.command)])
    line = ["run", *given, os.path.abspath(parsed.target), *tail, *parsed.command]
    click.echo((_script if is_script else _unit)(name, request, line), nl=False)
    return 0


def _words_of(name: str) -> list[str]:
    """Return the command line of a running container, its name and tree as they are now."""
    with find(name) as handle:
        running = handle.running
        with open(f"/proc/{running.pid}/cmdline", "rb") as file:
            words = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
    verbs = ("run", "start", "hold")
    began = next((i for i, word in enumerate(words) if word in verbs), len(words))
    if words[began : began + 1] == ["hold"]:
        raise UsageError(f"Container {name} is held: it has no command", _WANTED)
    words = words[began + 1 :]
    parsed = parse(words, OPTIONS)
    said = parsed.flags | parsed.values.keys()
    alien = [o.names[0] for o in OPTIONS if o.key in NOT_DETACHED and o.key in said]
    if alien:
        raise UsageError(
            f"Container {name} was started with {', '.join(alien)}, for somebody who waits for it",
            f"give its command line without: {_WANTED}",
        )
    target = parsed.target
    if target is None:
        raise UsageError(f"Container {name} was not started by a command line of xbuild's", _WANTED)
    words[words.index(target)] = running.tree
    return ["--name", running.name, *words] if "--name" not in words else words


def _absolute(words: list[str]) -> list[str]:
    """Make paths that follow an option absolute where they are there: ./pi.toml, src:/src."""
    return [_absolute_word(word) for word in words]


def _absolute_word(word: str) -> str:
    name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    source, colon, rest = value.partition(":")
    if value.startswith(("./", "../")) or (colon and source and os.path.exists(source)):
        value = f"{os.path.abspath(source)}{colon}{rest}"
    return f"{name}{equals}{value}"


def _program() -> str:
    """Return the program that is running, unless Python was told so by -m."""
    script = next((word for word in sys.orig_argv[1:] if not word.startswith("-")), "")
    if "/" in script and os.access(script, os.X_OK):
        return os.path.abspath(script)
    return os.path.abspath(shutil.which(script or "xbuild") or "/usr/bin/xbuild")


def _stop_s(request: Request) -> float:
    return max(request.kill_timeout_s, KILL_TIMEOUT_S) + _MARGIN_S


def _unit(name: str, request: Request, words: list[str]) -> str:
    return _UNIT.format(
        path=f"/etc/systemd/system/{name}.service",
        name=name,
        tree=_specifier_free(request.target),
        mounts=f'"{_escaped(request.target)}"',
        command=" ".join(_quoted(word) for word in [_program(), *words]),
        stop_s=_stop_s(request),
    )


def _quoted(word: str) -> str:
    """Quote a word as systemd.service(5) reads it: specifiers and variables are doubled."""
    plain = _escaped(word).replace("$", "$$").replace("\n", "\\n").replace("\t", "\\t")
    is_safe = bool(word) and all(c.isalnum() or c in "/-_.,:=@+$%" for c in word)
    return plain if is_safe else f'"{plain}"'


def _escaped(text: str) -> str:
    """Escape what a quoted word of systemd's has a meaning for: systemd.syntax(7)."""
    return _specifier_free(text).replace("\\", "\\\\").replace('"', '\\"')


def _specifier_free(text: str) -> str:
    return text.replace("%", "%%")


def _script(name: str, request: Request, words: list[str]) -> str:
    return _SCRIPT.format(
        name=name,
        description=shlex.quote(f"Container {name} on {request.target}"),
        program=shlex.quote(_program()),
        # start-stop-daemon's arguments are evaluated once more by the shell.
        arguments=shlex.quote(shlex.join(words)),
        stop_s=_stop_s(request),
    )


def build_command() -> click.Command:
    """Return the click command for help and completion."""
    return build_command_of("unit", _SHOWN, "[--openrc] TREE|IMAGE", SUMMARY, EPILOG)


def __getattr__(name: str) -> click.Command:
    """Build the click command when something asks for it: help, completion."""
    if name == "command":
        return build_command()
    raise AttributeError(name)
