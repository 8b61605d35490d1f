"""Run the system's own programs on an image: sfdisk, blkid, dumpe2fs, mtools and their like.

An image reaches them as a descriptor (/proc/self/fd/N), so that neither a path's characters nor a
change of what it names can matter. Their output is bounded, as is their time: an image is not
trusted. What takes one apart runs in a cell (``sandbox.cell``), whose owner is the ImageFile.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from xbuild.errors import DamagedImage, ImageToolMissing
from xbuild.record import HostPath, Record
from xbuild.sandbox.cell import Cell, Program

if TYPE_CHECKING:
    from xbuild.image.file import ImageFile

TIMEOUT_S = 60.0
OUTPUT_LIMIT = 16 << 20  # bytes
_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")

# Debian's names; close relatives and most other distributions share them.
_PACKAGES = {
    "blkid": "util-linux",
    "btrfs": "btrfs-progs",
    "debugfs": "e2fsprogs",
    "dump.erofs": "erofs-utils",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "fsck.erofs": "erofs-utils",
    "fsck.f2fs": "f2fs-tools",
    "fsck.fat": "dosfstools",
    "mcopy": "mtools",
    "mdir": "mtools",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "resize2fs": "e2fsprogs",
    "sfdisk": "fdisk (util-linux elsewhere)",
    "unsquashfs": "squashfs-tools",
    "xfs_logprint": "xfsprogs",
    "xfs_repair": "xfsprogs",
}


class Output(Record):
    """What a program left: its exit status, what it printed, and its complaints as text."""

    status: int
    stdout: bytes
    stderr: str


def find_program(name: str) -> str | None:
    """Return the path of a system program, also where the caller's PATH has no sbin."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *_PLACES)))


def require_program(name: str, purpose: str) -> str:
    """Return the path of a system program. Raises ImageToolMissing naming its package."""
    path = find_program(name)
    if path is None:
        package = _PACKAGES.get(name, name)
        raise ImageToolMissing(
            f"Cannot {purpose}: {name} is not installed", f"install the package {package}"
        )
    return path


def require_for_cell(name: str, purpose: str) -> str:
    """Return the path of a system program, if possible where a cell has it, before PATH's.

    Raises ImageToolMissing.
    """
    return shutil.which(name, path=os.pathsep.join(_PLACES)) or require_program(name, purpose)


def program_in_cell(
    name: str,
    arguments: Sequence[str],
    descriptors: tuple[tuple[int, int], ...],
    *,
    purpose: str,
    environment: Mapping[str, str] | None = None,
    largest_file: int | None = None,
) -> Program:
    """Return a program as it is started in a cell. Raises ImageToolMissing."""
    path = require_for_cell(name, purpose)
    settings = {"PATH": os.pathsep.join(_PLACES), "LC_ALL": "C", "HOME": "/"}
    return Program(
        HostPath(os.path.realpath(path)),
        (path, *arguments),
        {**settings, **(environment or {})},
        descriptors,
        largest_file,
    )


_Files = tuple[IO[bytes], IO[bytes], IO[bytes]]


class _Call(Record):
    """What to run, and with what besides its standard streams."""

    name: str
    arguments: tuple[str, ...]
    purpose: str
    descriptors: tuple[int, ...]
    environment: Mapping[str, str]
    output_limit: int


def run_program(
    name: str,
    arguments: Sequence[str],
    *,
    purpose: str,
    image: ImageFile | None = None,
    descriptors: tuple[int, ...] = (),
    commands: bytes = b"",
    environment: Mapping[str, str] | None = None,
    output_limit: int = OUTPUT_LIMIT,
) -> Output:
    """Run ``name`` with ``commands`` on its standard input and return what it printed.

    ``purpose`` completes "Cannot …". ``descriptors`` are inherited. Its messages are English.
    ``output_limit`` is in bytes. ``image`` is what it takes apart: it inherits that, too, and runs
    in the image's cell, where one can be made.
    Raises ImageToolMissing, and DamagedImage when it takes too long or prints without end, which
    only an image made for that brings about.
    """
    shown = descriptors if image is None else (image.fd, *descriptors)
    call = _Call(name, tuple(arguments), purpose, shown, environment or {}, output_limit)
    cell = None if image is None else image.cell()
    with _exchange(commands) as files:
        if image is None or cell is None:
            code = _run_here(call, files)
        else:
            code = _run_in_cell(image, cell, call, files)
        return _output(call, code, files)


def _run_in_cell(image: ImageFile, cell: Cell, call: _Call, files: _Files) -> int:
    streams = enumerate(file.fileno() for file in files)
    program = program_in_cell(
        call.name,
        call.arguments,
        (*streams, *((fd, fd) for fd in call.descriptors)),
        purpose=call.purpose,
        environment=call.environment,
        largest_file=call.output_limit,
    )
    try:
        cell.start(program)
    except OSError as error:
        image.close_cell()
        raise unstartable(call.name, call.purpose, error) from error
    try:
        status = cell.wait(TIMEOUT_S)
    except OSError as error:
        image.close_cell()
        raise DamagedImage(f"Cannot {call.purpose}: {call.name} ended before its time") from error
    if status is None:
        image.close_cell()
        raise _endless(call)
    return os.waitstatus_to_exitcode(status)


def _run_here(call: _Call, files: _Files) -> int:
    asked, printed, complaints = files
    command = [require_program(call.name, call.purpose), *call.arguments]
    try:
        process = subprocess.Popen(
            command,
            stdin=asked,
            stdout=printed,
            stderr=complaints,
            pass_fds=call.descriptors,
            env={**os.environ, "LC_ALL": "C", **call.environment},
        )
    except OSError as error:
        raise unstartable(call.name, call.purpose, error) from error
    # Not by preexec_fn, which would copy this process's memory for each program.
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (call.output_limit,) * 2)
    if not _has_ended(process, TIMEOUT_S):
        raise _endless(call)
    return process.returncode


@contextlib.contextmanager
def _exchange(commands: bytes) -> Iterator[_Files]:
    """Yield files without names for a program's standard input, output and complaints."""
    with (
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as printed,
        tempfile.TemporaryFile() as complaints,
    ):
        asked.write(commands)
        asked.seek(0)
        yield asked, printed, complaints


def _output(call: _Call, code: int, files: _Files) -> Output:
    _, printed, complaints = files
    stdout = os.pread(printed.fileno(), call.output_limit, 0)
    stderr = os.pread(complaints.fileno(), call.output_limit, 0)
    if len(stdout) >= call.output_limit:
        raise DamagedImage(f"Cannot {call.purpose}: {call.name} printed more than is sane")
    return Output(code, stdout, stderr.decode("utf-8", "replace"))


def _endless(call: _Call) -> DamagedImage:
    return DamagedImage(f"Cannot {call.purpose}: {call.name} did not end")


def unstartable(name: str, purpose: str, error: OSError) -> ImageToolMissing:
    """Return the error for a program that is there and cannot be started."""
    return ImageToolMissing(
        f"Cannot {purpose}: {name}: {error.strerror}",
        f"see that {name} is installed whole, below /usr: {name} --version",
    )


def _has_ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for a program, without the pauses of Popen.wait(), and kill it if it takes too long."""
    fd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        has_ended = bool(poll.poll(timeout_s * 1000))
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        os.close(fd)
    if not has_ended:
        process.kill()
    process.wait()
    return has_ended
