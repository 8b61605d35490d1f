"""The console entry point: dispatch, and the one place where a failure becomes an exit status.

``xbuild run`` is a program that people put in loops, so it goes past click to its own parser;
nothing here imports click before that is decided. Commands themselves do not belong here.
"""

from __future__ import annotations

import os
import sys

from xbuild.cli.output import complain, discard_output, prepare_streams
from xbuild.errors import EXIT_FAILED, EXIT_SIGNAL_BASE, EXIT_USAGE, XbuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    Dispatch = Callable[[list[str]], int]
else:
    import _signal as signal  # signal itself imports enum

_OWN_PARSERS = ("exec", "start", "hold", "unit")  # as run: what follows a target is a command's
_LESS_DEEP = "no build has such a tree: rm -r what made it, or name another place"
_ELSEWHERE = "cd somewhere, or begin it with a slash"


def main() -> int:
    """Run the command line in sys.argv and return its exit status.

    The command's own status, 2 for usage, 125 for xbuild's failure, 128+N for a signal.
    """
    prepare_streams()
    # Inherited as ignored, it would have the kernel reap children unasked (wait(2)).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return call_reporting(_load(sys.argv[1:]), sys.argv[1:])


def call_reporting(dispatch: Dispatch, arguments: list[str]) -> int:
    """Call ``dispatch`` and turn what a user can cause into text on standard error and a status."""
    try:
        status = dispatch(arguments)
        sys.stdout.flush()
    except XbuildError as error:
        complain(error.message, error.hint)
        return _settle_output(error.exit_status)
    except KeyboardInterrupt:
        return _settle_output(EXIT_SIGNAL_BASE + signal.SIGINT)
    except BrokenPipeError:
        return _settle_output(EXIT_SIGNAL_BASE + signal.SIGPIPE)
    except RecursionError:
        complain("Directories are nested too deeply to be followed", _LESS_DEEP)
        return _settle_output(EXIT_FAILED)
    except FileNotFoundError as error:
        if error.filename is not None or _has_working_directory():
            raise
        complain("A path is relative to the working directory, which was removed", _ELSEWHERE)
        return _settle_output(EXIT_USAGE)
    return status


def _has_working_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _settle_output(status: int) -> int:
    """Write what is still buffered if that is possible; ``status`` says more than its loss."""
    try:
        sys.stdout.flush()
    except (XbuildError, BrokenPipeError):
        discard_output()
    return status


def _load(arguments: list[str]) -> Dispatch:
    """Return what runs a command line. Meanwhile ^C ends this process at once.

    A KeyboardInterrupt is lost when it comes in a callback of the import system's.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        return _dispatch_of(arguments)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    dispatch = _dispatch_of(arguments)
    signal.signal(signal.SIGINT, before)
    return dispatch


def _dispatch_of(arguments: list[str]) -> Dispatch:
    if arguments[:1] == ["run"]:
        from xbuild.cli.run import main as run

        return lambda words: run(words[1:])
    if arguments and arguments[0] in _OWN_PARSERS:
        from importlib import import_module

        command: Dispatch = import_module(f"xbuild.cli.{arguments[0]}").main
        return lambda words: command(words[1:])
    from xbuild.cli.group import invoke

    return invoke


if __name__ == "__main__":
    sys.exit(main())
