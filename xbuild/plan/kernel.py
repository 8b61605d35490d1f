"""What the kernel says of itself and of this process: its version, /proc/self/status, sysctls.

Scope: reading files of /proc, cheaply, for every start of a container does it.
"""

from __future__ import annotations

import os

_AT_ONCE = 1 << 16  # bytes; proc(5) files give a page or what is asked for, whichever is less


def read_proc(path: str) -> str:
    """Return the content of a small file; "" where there is none or it may not be read."""
    content = b""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a file object costs four calls more
        try:
            while part := os.read(fd, _AT_ONCE):
                content += part
        finally:
            os.close(fd)
    except OSError:
        return ""
    return content.decode("utf-8", "surrogateescape")


def read_sysctl(name: str) -> str | None:
    """Return a value below /proc/sys, or None where the kernel has no such setting."""
    return read_proc("/proc/sys/" + name.replace(".", "/")).strip() or None


def read_status() -> dict[str, str]:
    """Return the fields of /proc/self/status (proc_pid_status(5)); none where it is hidden."""
    lines = (line.partition(":") for line in read_proc("/proc/self/status").splitlines())
    return {key: value.strip() for key, _, value in lines}


def kernel_version(release: str) -> tuple[int, int]:
    """Return (major, minor) of a release such as ``6.18.44-fc``; (0, 0) when it has none."""
    numbers = []
    for part in release.split(".", 2)[:2]:
        digits = part[: next((i for i, c in enumerate(part) if not c.isdigit()), len(part))]
        numbers.append(int(digits or 0))
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)
