"""The errors that a plain start of a container may raise: found in ``xbuild.errors``."""

from __future__ import annotations

EXIT_USAGE = 2
EXIT_TIMEOUT = 124
EXIT_FAILED = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128
EXIT_REBOOT = 133  # from process 1 to the launcher, which boots again: as systemd-nspawn has it


class XbuildError(Exception):
    """A failure explained to the person who asked: ``message``, and ``hint``, what to do next.

    A class whose errors mostly have one remedy names that as ``usual_hint``; others are given one
    where they are raised, which a test sees to (tests/unit/test_hints.py).
    """

    exit_status = EXIT_FAILED
    usual_hint = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.usual_hint


class UsageError(XbuildError):
    """The request itself is malformed."""

    exit_status = EXIT_USAGE


# binary


class UnknownArchitecture(XbuildError):
    """A name or an ELF header that no row of the architecture table matches."""

    usual_hint = "xbuild knows what qemu-user emulates: xbuild doctor names it"


class UnknownArchitectureName(UnknownArchitecture):
    """A name that somebody wrote, and no row of the table has."""

    exit_status = EXIT_USAGE


class NotElf(XbuildError):
    """A file that is no ELF object at all (a script, a PE file, text)."""

    usual_hint = "a program is wanted: file(1) says what this is"


class DamagedElf(XbuildError):
    """An ELF file that is truncated or whose headers contradict each other."""

    usual_hint = "it is damaged or cut off: install its package, or fetch it, again"


# tree


class TargetError(XbuildError):
    """A target that cannot be read as a root filesystem, an archive or a program."""


class TargetNotFound(TargetError):
    """No such path."""

    usual_hint = "look at the path; xbuild create makes a tree"


class NotARootfs(TargetError):
    """A directory or archive in which no program of any architecture was found."""


class SymlinkLoop(TargetError):
    """More than 40 symbolic links in one resolution (path_resolution(7))."""

    usual_hint = "ls -l shows where each link leads: one of them has to lead elsewhere"


# emulation


class InterpreterError(XbuildError):
    """A qemu-user interpreter that cannot serve."""


class InterpreterMissing(InterpreterError):
    """No static interpreter for the architecture on this host."""


class InterpreterUnsuitable(InterpreterError):
    """A file that is dynamic, a script, of a foreign machine, or emulates something else."""


class BinfmtError(XbuildError):
    """The binfmt_misc registry refused or does not serve."""

    usual_hint = "xbuild binfmt list shows the entries that there are, and which work"


# plan


class HostUnable(XbuildError):
    """The host lacks something that the request needs."""


# sandbox


class SetupFailed(XbuildError):
    """A step of the plan failed; nothing is left behind."""


class NameTaken(XbuildError):
    """A container with the name that was asked for is running."""
