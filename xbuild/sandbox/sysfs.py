"""What the kernel shows of itself in /sys and /proc; nothing where it shows none. Reading only."""

from __future__ import annotations

import os

BLOCKS = "/sys/block"


def names_in(directory: str) -> list[str]:
    """Return the names in a directory, sorted."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def text_of(path: str) -> str:
    """Return the content of a file without its last line's end."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def processes() -> list[int]:
    """Return the numbers of the processes that /proc lists, sorted."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def backing_file_of(loop: str) -> str:
    """Return the file of a loop device such as ``loop0``: that without one has none to show."""
    return text_of(f"{BLOCKS}/{loop}/loop/backing_file")
