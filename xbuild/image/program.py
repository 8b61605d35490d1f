"""Run the system's own programs on an image: sfdisk, blkid, dumpe2fs, mtools and their like.

An image reaches them as a descriptor (/proc/self/fd/N), so that neither a path's characters nor a
change of what it names can matter. Their output is bounded, as is their time: an image is not
trusted.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial

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
    "mcopy": "mtools",
    "mdir": "mtools",
    "resize2fs": "e2fsprogs",
    "sfdisk": "fdisk (util-linux elsewhere)",
    "unsquashfs": "squashfs-tools",
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
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.run(
                command,
                input=commands,
                stdout=printed,
                stderr=complaints,
                pass_fds=descriptors,
                env=settings,
                timeout=TIMEOUT_S,
                check=False,
                preexec_fn=partial(_limit_output, output_limit),
            )
        except subprocess.TimeoutExpired as error:
            raise DamagedImage(f"Cannot {purpose}: {name} did not end") from error
        except OSError as error:
            raise ImageToolMissing(f"Cannot {purpose}: {name}: {error.strerror}") from error
        stdout = os.pread(printed.fileno(), output_limit, 0)
        stderr = os.pread(complaints.fileno(), output_limit, 0)
    if len(stdout) >= output_limit:
        raise DamagedImage(f"Cannot {purpose}: {name} printed more than is sane")
    return Output(process.returncode, stdout, stderr.decode("utf-8", "replace"))


def _limit_output(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
