"""Run the system's own programs on an image: sfdisk, blkid, dumpe2fs, mtools and their like.

An image reaches them as a descriptor (/proc/self/fd/N), so that neither a path's characters nor a
change of what it names can matter. Their output is bounded, as is their time: an image is not
trusted.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from xbuild.errors import DamagedImage, ImageToolMissing
from xbuild.record import Record

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


def run_program(
    name: str,
    arguments: Sequence[str],
    *,
    purpose: str,
    descriptors: tuple[int, ...] = (),
    commands: bytes = b"",
    environment: Mapping[str, str] | None = None,
    output_limit: int = OUTPUT_LIMIT,
) -> Output:
    """Run ``name`` with ``commands`` on its standard input and return what it printed.

    ``purpose`` completes "Cannot …". ``descriptors`` are inherited. Its messages are English.
    ``output_limit`` is in bytes.
    Raises ImageToolMissing, and DamagedImage when it takes too long or prints without end, which
    only an image made for that brings about.
    """
    command = [require_program(name, purpose), *arguments]
    settings = {**os.environ, "LC_ALL": "C", **(environment or {})}
    with (
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as printed,
        tempfile.TemporaryFile() as complaints,
    ):
        asked.write(commands)
        asked.seek(0)
        try:
            process = subprocess.Popen(
                command,
                stdin=asked,
                stdout=printed,
                stderr=complaints,
                pass_fds=descriptors,
                env=settings,
            )
        except OSError as error:
            raise ImageToolMissing(
                f"Cannot {purpose}: {name}: {error.strerror}",
                f"see that {name} is installed whole: {name} --version",
            ) from error
        # Not by preexec_fn, which would copy this process's memory for each program.
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (output_limit, output_limit))
        if not _has_ended(process, TIMEOUT_S):
            raise DamagedImage(f"Cannot {purpose}: {name} did not end")
        stdout = os.pread(printed.fileno(), output_limit, 0)
        stderr = os.pread(complaints.fileno(), output_limit, 0)
    if len(stdout) >= output_limit:
        raise DamagedImage(f"Cannot {purpose}: {name} printed more than is sane")
    return Output(process.returncode, stdout, stderr.decode("utf-8", "replace"))


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
