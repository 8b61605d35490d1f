"""The symbolic links at the top of a tree, without which /usr alone runs nothing.

Off the start path.
"""

from __future__ import annotations

import os
import stat

from xbuild.errors import TargetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.tree.resolve import DirectoryReader

_LIMIT = 64


def read_top_links(reader: DirectoryReader) -> tuple[tuple[str, str], ...]:
    """Return the links at the top of a tree, such as bin to usr/bin.

    Raises TargetError for a tree whose programs are not all below /usr.
    """
    links: list[tuple[str, str]] = []
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=reader.fd)
    try:
        names = sorted(os.listdir(directory))
    finally:
        os.close(directory)
    for name in names:
        mode = os.lstat(name, dir_fd=reader.fd).st_mode
        if name in ("bin", "lib") and stat.S_ISDIR(mode):
            raise TargetError(
                f"{reader.label}/{name} is a directory: without it, /usr alone runs nothing",
                "--volatile overlay discards all changes and works with any tree",
            )
        if stat.S_ISLNK(mode) and len(links) < _LIMIT:
            links.append((name, os.readlink(name, dir_fd=reader.fd)))
    return tuple(links)
