"""Programs that take as long as they take: what repairs or resizes a file system, or unpacks one.

Each has a cell of its own, and is ended with it.
"""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import tempfile
from collections.abc import Sequence

from xbuild.errors import DamagedImage
from xbuild.image.cells import make_cell
from xbuild.image.closing import Closing
from xbuild.image.program import program_in_cell, require_program, unstartable

_SAID_LIMIT = 256 << 20  # bytes; dumpe2fs lists the free blocks of a large file system
_PIPE_SIZE = 1 << 20


class Running(Closing):
    """A program whose output is read from ``stdout`` while it runs; killed by close().

    ``stdin`` and the ``opened`` descriptor, which it opens anew by /proc/self/fd/N, stay the
    caller's.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        stdin: int,
        *,
        purpose: str,
        label: str,
        opened: int | None = None,
        has_messages: bool = False,
    ) -> None:
        """Start it; with ``has_messages`` they are part of its output. Raises ImageToolMissing."""
        shown = () if opened is None else (opened,)
        self._status: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        may_write = any(map(_is_writable, shown))
        self._cell = make_cell(label, *shown, may_write=may_write, has_bounds=False)
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self.stdout = io.FileIO(reading)
        try:
            with open(os.devnull, "wb") as null:
                messages = writing if has_messages else null.fileno()
                self._start(name, arguments, (stdin, writing, messages), shown, purpose)
        except OSError as error:
            self.close()
            raise unstartable(name, purpose, error) from error
        except BaseException:
            self.close()
            raise
        finally:
            os.close(writing)

    def _start(
        self,
        name: str,
        arguments: Sequence[str],
        streams: tuple[int, int, int],
        shown: tuple[int, ...],
        purpose: str,
    ) -> None:
        if self._cell is not None:
            given = (*enumerate(streams), *((fd, fd) for fd in shown))
            self._cell.start(program_in_cell(name, arguments, given, purpose=purpose))
            return
        stdin, stdout, stderr = streams
        self._process = subprocess.Popen(
            [require_program(name, purpose), *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=shown,
            env={**os.environ, "LC_ALL": "C"},
        )

    def wait(self) -> int:
        """Return its exit status, that of a signal negative, once it has ended."""
        if self._status is None:
            self._status = self._wait()
        return self._status

    def _wait(self) -> int:
        if self._process is not None:
            return self._process.wait()
        assert self._cell is not None
        try:
            return os.waitstatus_to_exitcode(self._cell.wait() or 0)
        except OSError:
            return -1  # whatever made the cell's process 1 end

    def close(self) -> None:
        """End it; a second call does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._cell is not None:
            self._cell.close()
        self.stdout.close()


def _is_writable(fd: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def run_unhurried(
    fd: int,
    name: str,
    arguments: Sequence[str],
    *,
    purpose: str,
    label: str,
    commands: bytes = b"",
) -> tuple[int, str]:
    """Run a program on a file, as long as it takes; return its status and all that it said.

    It may write where ``fd`` is open for that. ``purpose`` completes "Cannot …"; ``label`` names
    the file. Raises ImageToolMissing, DamagedImage.
    """
    with tempfile.TemporaryFile() as asked:
        asked.write(commands)
        asked.seek(0)
        with Running(
            name,
            arguments,
            asked.fileno(),
            purpose=purpose,
            label=label,
            opened=fd,
            has_messages=True,
        ) as running:
            with io.BufferedReader(running.stdout) as said:
                text = said.read(_SAID_LIMIT)
            if len(text) == _SAID_LIMIT:
                raise DamagedImage(f"Cannot {purpose}: {name} printed more than is sane")
            return running.wait(), text.decode("utf-8", "replace")
