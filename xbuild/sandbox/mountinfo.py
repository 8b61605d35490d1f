"""Mount tables of this and other mount namespaces: proc_pid_mountinfo(5). Reading only.

Off the start path; what a plan needs to know of mounts is in ``plan.host``.
"""

from __future__ import annotations

import os
import re

from xbuild.record import Record

_ESCAPE = re.compile(r"\\([0-7]{3})")


class MountRow(Record):
    """One mount. ``root`` is the directory of the file system that is shown at ``point``.

    ``tags`` are the optional fields, such as ``shared:7`` and ``master:7``.
    """

    mount_id: int
    device: str
    root: str
    point: str
    options: str
    tags: tuple[str, ...]
    filesystem: str
    source: str
    super_options: str

    @property
    def groups(self) -> frozenset[str]:
        """The peer groups that this mount gives events to or has them from."""
        return frozenset(tag.partition(":")[2] for tag in self.tags if ":" in tag)


def read_mountinfo(pid: int | str = "self") -> tuple[MountRow, ...]:
    """Return the mounts that a process sees. Raises OSError when it is gone or hidden."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return tuple(parse_row(line) for line in file.read().split("\n") if line)


def parse_row(line: str) -> MountRow:
    """Parse one line; octal escapes are resolved."""
    fields = [_ESCAPE.sub(lambda code: chr(int(code[1], 8)), field) for field in line.split(" ")]
    dash = fields.index("-", 6)
    filesystem, source, super_options = fields[dash + 1 : dash + 4]
    return MountRow(
        int(fields[0]),
        fields[2],
        fields[3],
        fields[4],
        fields[5],
        tuple(fields[6:dash]),
        filesystem,
        source,
        super_options,
    )


def mount_of(path: str) -> MountRow:
    """Return the mount that ``path`` is on. Raises OSError for a path that is not there."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
    finally:
        os.close(fd)
    wanted = int(fields["mnt_id"])
    row = next((row for row in read_mountinfo() if row.mount_id == wanted), None)
    if row is None:  # below a mount that is not reachable from the root directory: chroot(2)
        raise FileNotFoundError(2, "it is on a mount that is not in /proc/self/mountinfo", path)
    return row


def is_within(path: str, directory: str) -> bool:
    """Tell whether ``path`` is ``directory`` or below it; both absolute and free of symlinks."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")
