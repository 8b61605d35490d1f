"""Standard output and error: made safe to use at start, and the two ways of writing a failure.

On the start path of ``xbuild run``: no click, no rich.
"""

from __future__ import annotations

import io
import os
import sys

from xbuild.errors import XbuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputLost(XbuildError):
    """A result that could not be written: standard output is closed, or its disk is full."""


class _Output(io.FileIO):
    """Descriptor 1, whose failures say what they are wherever in the program they surface."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputLost(f"cannot write to standard output: {error.strerror}") from error


def prepare_streams() -> None:
    """Make standard output and error usable whatever was closed and whatever the locale is.

    Afterwards writing to standard output raises only BrokenPipeError and OutputLost; characters
    that the locale's encoding lacks, and bytes that are no text, appear as escapes.
    """
    _occupy_closed_descriptors()
    was = sys.stdout
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding=was.encoding if was is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=was is not None and was.isatty(),
    )
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


def _occupy_closed_descriptors() -> None:
    """Let no file that is opened later become standard input, output or error.

    A descriptor that was closed is opened the wrong way round, so that using it still fails with
    EBADF (gnulib's stdopen).
    """
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)


def discard_output() -> None:
    """Give the unwritten rest a place to go, or the interpreter complains as it shuts down."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def complain(message: str, hint: str = "") -> None:
    """Write a failure on standard error; a hint of several lines is several hints."""
    if sys.stderr is None:  # print() would turn to standard output instead
        return
    lines = [f"xbuild: {message}"] + [f"hint: {line}" for line in hint.splitlines()]
    try:
        sys.stderr.write("".join(visible(line) + "\n" for line in lines))
        sys.stderr.flush()
    except OSError:
        return  # nobody listens: the exit status is all that is left


def note(text: str) -> None:
    """Write what a person should know on standard error."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"note: {visible(text)}\n")
        sys.stderr.flush()
    except OSError:
        return  # nobody listens


def note_warnings() -> None:
    """Show warnings as notes from now on, each with its hint."""
    import warnings  # not for a plain start

    def show(message: Warning | str, *_where: object, **_options: object) -> None:
        note("; ".join(str(message).splitlines()))

    warnings.showwarning = show


def visible(text: str) -> str:
    r"""Return ``text`` on one line: control characters and undecodable bytes as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte kept by surrogateescape (PEP 383)
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
