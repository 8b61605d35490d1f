"""Checking and resizing an ext file system that stands alone in a file, by e2fsprogs.

Alone, as resize2fs cuts a regular file off behind the file system that it resized: with
``?offset=`` (which it accepts) it would take the end of the image along.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

from xbuild.errors import DamagedImage, ImageError
from xbuild.image.program import require_program
from xbuild.record import HostPath

_FIXED = 1  # e2fsck(8): errors corrected
_MINIMUM = re.compile(r"minimum size of the filesystem: (\d+)")
_BLOCK_SIZE = re.compile(r"^Block size:\s+(\d+)$", re.MULTILINE)


def repair_ext(path: HostPath, *, label: str) -> None:
    """Check all of it and repair what is safe to repair, the journal replayed: e2fsck -f -p.

    Raises DamagedImage when a person has to decide.
    """
    status, text = run_tool("e2fsck", ["-f", "-p", path], f"check the file system of {label}")
    if status & ~_FIXED:
        raise DamagedImage(
            f"The file system of {label} has errors that e2fsck does not repair by itself: "
            f"{_last_line(text)}",
            "repair it first, with e2fsck -f on a loop device",
        )


def verify_ext(path: HostPath, offset: int, *, label: str) -> None:
    """Check the file system at ``offset`` bytes without writing. Raises DamagedImage."""
    arguments = ["-f", "-n", f"{path}?offset={offset}"]
    status, text = run_tool("e2fsck", arguments, f"check the file system of {label}")
    if status:
        raise DamagedImage(f"The file system of {label} is not clean: {_last_line(text)}")


def smallest_ext(path: HostPath, *, label: str) -> int:
    """Return the size in bytes below which resize2fs will not go; wants a checked file system."""
    purpose = f"measure the file system of {label}"
    _, text = run_tool("resize2fs", ["-P", path], purpose)
    _, facts = run_tool("dumpe2fs", ["-h", path], purpose)
    minimum, block = _MINIMUM.search(text), _BLOCK_SIZE.search(facts)
    if minimum is None or block is None:
        raise ImageError(f"Cannot {purpose}: {_last_line(text)}")
    return int(minimum[1]) * int(block[1])


def resize_ext(path: HostPath, size: int, *, label: str) -> None:
    """Make the file system ``size`` bytes long, in whole KiB, and the file with it."""
    purpose = f"resize the file system of {label}"
    status, text = run_tool("resize2fs", [path, f"{size >> 10}K"], purpose)
    if status:
        raise ImageError(f"Cannot {purpose}: {_last_line(text)}")


def run_tool(
    name: str, arguments: Sequence[str], purpose: str, *, commands: str = ""
) -> tuple[int, str]:
    """Run a program that writes to an image, as long as it takes; return its status and output.

    ``purpose`` completes "Cannot …". Raises ImageToolMissing.
    """
    done = subprocess.run(
        [require_program(name, purpose), *arguments],
        input=commands,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    return done.returncode, done.stdout


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
