"""``xbuild exec``: run a command in a container that is running already."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xbuild.cli.options import OPTIONS, parse
from xbuild.cli.output import note
from xbuild.cli.places import guest_path
from xbuild.cli.settings import environment_of
from xbuild.errors import TargetError, UsageError
from xbuild.plan.guest import Account, read_account
from xbuild.record import GuestPath, replace
from xbuild.sandbox.joining import Joined, Joining, join, plan_joined
from xbuild.sandbox.listing import find
from xbuild.sandbox.tap import Tap
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import SHELLS

if TYPE_CHECKING:
    import click

    from xbuild.cli.options import Parsed
    from xbuild.sandbox.listing import Running

USAGE = "xbuild exec [OPTIONS] NAME|TREE [--] [COMMAND...]"
SUMMARY = "Run COMMAND in the running container NAME, or in the only one on TREE."
EPILOG = """\
The command has what the container's own has: namespaces, environment, registry, limits. Without
COMMAND a login shell starts. The exit status is as of xbuild run.
"""
_KEYS = ("setenv", "env_file", "chdir", "user", "explain", "help")
EXEC_OPTIONS = tuple(option for option in OPTIONS if option.key in _KEYS)


def main(arguments: list[str]) -> int:
    """Run the command line after ``xbuild exec`` and return the exit status.

    Raises XbuildError subclasses.
    """
    parsed = parse(arguments, EXEC_OPTIONS)
    if "help" in parsed.flags:
        from xbuild.cli.usage import print_help_of

        print_help_of(build_command())
        return 0
    if not parsed.target:
        raise UsageError("No container was named", f"{USAGE}; xbuild ps")
    tap = Tap() if "explain" in parsed.flags else None
    with find(parsed.target) as handle:
        joining = _joining(parsed, handle.running)
        joined = join(handle.running, joining, tap)
        if joined.status:
            _explain(handle.running, joining, joined, parsed.command)
    for text in () if tap is None else tap.losses():
        note(text)
    return joined.status


def _explain(running: Running, joining: Joining, joined: Joined, command: tuple[str, ...]) -> None:
    """Say what is known of a failure, as of the command of the container's own."""
    from xbuild.cli.run import is_telling, may_lack_processor, tell_why  # only for a failure

    status = joined.status
    is_seen = is_telling(command, status, joined.last_output)
    plan = plan_joined(running, joining) if is_seen or status == 1 else None
    if plan is not None and (is_seen or may_lack_processor(plan, status)):
        tell_why(plan, status, joined.last_output)


def _joining(parsed: Parsed, running: Running) -> Joining:
    terminal = tuple(fd for fd in range(3) if os.isatty(fd))
    user, directory = parsed.one("user"), parsed.one("chdir")
    account, shell = _look_up(running, user)
    environment: dict[str, str] = {}
    if terminal:
        environment["TERM"] = os.environ.get("TERM", "dumb")
    home = None if user is None else account.home
    if home is not None:
        names = {"HOME": home, "USER": account.name, "LOGNAME": account.name, "SHELL": shell}
        environment.update(names)
    environment.update(environment_of(parsed))
    return Joining(
        parsed.command or (shell, "-l"),
        tuple(environment.items()),
        home if directory is None else guest_path(directory, "--chdir"),
        GuestPath("/") if directory is None and home is not None else None,
        None if user is None else (account.uid, account.gid, account.groups),
        terminal,
    )


def _look_up(running: Running, user: str | None) -> tuple[Account, GuestPath]:
    """Return who the user is and its shell, by the tree; of an image only numbers are known."""
    try:
        reader = DirectoryReader(running.tree)
    except TargetError:
        return _by_number(user), SHELLS[-1]
    with reader:
        account = read_account(reader, user)
        shell = account.shell or next((s for s in SHELLS if reader.lookup(s)), SHELLS[-1])
        if reader.lookup(account.home) is None:
            account = replace(account, home=GuestPath("/"))
        return account, shell


def _by_number(user: str | None) -> Account:
    uid, _, gid = (user or "0").removeprefix("root").partition(":")
    numbers = (uid or "0", gid or "0")
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise UsageError(f"Only numbers are known of users in an image, not {user!r}", "UID[:GID]")
    group = int(numbers[1])
    return Account(uid or "root", int(numbers[0]), group, (group,), GuestPath("/"), None)


def build_command() -> click.Command:
    """Return the click command for help and completion."""
    from xbuild.cli.names import complete_names
    from xbuild.cli.usage import build_command_of

    return build_command_of(
        "exec", EXEC_OPTIONS, "NAME|TREE", SUMMARY, EPILOG, complete=complete_names
    )


def __getattr__(name: str) -> click.Command:
    """Build the click command when something asks for it: help, completion."""
    if name == "command":
        return build_command()
    raise AttributeError(name)
