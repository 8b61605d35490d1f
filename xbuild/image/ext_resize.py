"""Checking and resizing an ext file system that stands alone in a file, by e2fsprogs.

Alone, as resize2fs cuts a regular file off behind the file system that it resized: with
``?offset=`` (which it accepts) it would take the end of the image along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from xbuild.errors import DamagedImage, ImageError
from xbuild.image.running import run_unhurried

_FIXED = 1  # e2fsck(8): errors corrected
_MINIMUM = re.compile(r"minimum size of the filesystem: (\d+)")
_BLOCK_SIZE = re.compile(r"^Block size:\s+(\d+)$", re.MULTILINE)


def repair_ext(fd: int, *, label: str) -> None:
    """Check all of it and repair what is safe to repair, the journal replayed: e2fsck -f -p.

    Raises DamagedImage when a person has to decide.
    """
    status, text = _run_on(
        fd, "e2fsck", ["-f", "-p"], f"check the file system of {label}", label=label
    )
    if status & ~_FIXED:
        raise DamagedImage(
            f"The file system of {label} has errors that e2fsck does not repair by itself: "
            f"{_last_line(text)}",
            "repair it first, with e2fsck -f on a loop device",
        )


def verify_ext(fd: int, offset: int, *, label: str) -> None:
    """Check the file system at ``offset`` bytes without writing. Raises DamagedImage."""
    purpose = f"check the file system of {label}"
    status, text = _run_on(fd, "e2fsck", ["-f", "-n"], purpose, offset, label=label)
    if status:
        raise DamagedImage(f"The file system of {label} is not clean: {_last_line(text)}")


def smallest_ext(fd: int, *, label: str) -> int:
    """Return the size in bytes below which resize2fs will not go; wants a checked file system."""
    purpose = f"measure the file system of {label}"
    _, text = _run_on(fd, "resize2fs", ["-P"], purpose, label=label)
    facts = describe_ext(fd, 0, label=label)
    minimum, block = _MINIMUM.search(text), _BLOCK_SIZE.search(facts)
    if minimum is None or block is None:
        raise ImageError(
            f"Cannot {purpose}: {_last_line(text)}",
            "xbuild run --fsck IMAGE true repairs it first, if that is it",
        )
    return int(minimum[1]) * int(block[1])


def describe_ext(fd: int, offset: int, *, label: str) -> str:
    """Return what dumpe2fs prints of the file system at ``offset``, "" if it cannot read it."""
    status, text = _run_on(fd, "dumpe2fs", [], f"look into {label}", offset, label=label)
    return "" if status else text


def resize_ext(fd: int, size: int, *, label: str) -> None:
    """Make the file system ``size`` bytes long, in whole KiB, and the file with it."""
    purpose = f"resize the file system of {label}"
    status, text = _run_on(fd, "resize2fs", [], purpose, label=label, trailing=(f"{size >> 10}K",))
    if status:
        raise ImageError(
            f"Cannot {purpose}: {_last_line(text)}",
            "xbuild run --fsck IMAGE true repairs it first, if that is it",
        )


def _run_on(
    fd: int,
    name: str,
    options: Sequence[str],
    purpose: str,
    offset: int = 0,
    *,
    label: str,
    trailing: Sequence[str] = (),
) -> tuple[int, str]:
    """Run a program of e2fsprogs on an open file: in a path, "?" would begin options."""
    place = f"/proc/self/fd/{fd}" + (f"?offset={offset}" if offset else "")
    return run_unhurried(fd, name, [*options, place, *trailing], purpose=purpose, label=label)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
