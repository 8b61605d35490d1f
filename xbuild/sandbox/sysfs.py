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


def io_of(pid: int | str, *counters: str) -> int | None:
    """Return the sum of a process's ``counters``, such as wchar, in bytes: proc_pid_io(5).

    None where they are not to be read: the process is gone, or of another user's namespace, or the
    kernel has no CONFIG_TASK_IO_ACCOUNTING.
    """
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith(counters))
    except OSError:
        return None


def backing_file_of(loop: str) -> str:
    """Return the file of a loop device such as ``loop0``: that without one has none to show."""
    return text_of(f"{BLOCKS}/{loop}/loop/backing_file")
