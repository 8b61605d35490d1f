"""Whether the files of a set are what its manifest says: asked before each use."""

from __future__ import annotations

import os
import stat

from xbuild.errors import ToolsetDamaged
from xbuild.toolset.digests import Digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.record import HostPath
    from xbuild.toolset.manifest import File, Toolset

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def check_toolset(toolset: Toolset, *, remember: bool) -> None:
    """Compare every file below a set's root with the manifest, those not known by reading them.

    What was read is kept if ``remember``. Raises ToolsetDamaged, which names the file.
    """
    digests = Digests(toolset.directory)
    expected = {file.path: file for file in toolset.files}
    for path in _files_below(toolset.root, toolset):
        file = expected.pop(path, None)
        if file is None:
            raise damaged(toolset, f"{path} is not of it")
        _check_file(toolset, file, digests)
    if expected:
        raise damaged(toolset, f"{min(expected)} is missing")
    if remember:
        digests.keep()


def damaged(toolset: Toolset, why: str) -> ToolsetDamaged:
    """Return the error about one thing that is wrong with a set."""
    return ToolsetDamaged(
        f"The set of native tools {toolset.digest[:12]} is damaged: {why}",
        f"rm -r {toolset.directory}, then xbuild native prepare TARGET makes it anew",
    )


def _files_below(root: HostPath, toolset: Toolset) -> list[str]:
    found = []
    pending = [""]
    try:
        while pending:
            directory = pending.pop()
            with os.scandir(f"{root}/{directory}") as entries:
                for entry in entries:
                    path = f"{directory}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(f"{path}/")
                    else:
                        found.append(path)
    except OSError as error:
        raise damaged(toolset, f"{error.filename}: {error.strerror}") from error
    return found


def _check_file(toolset: Toolset, file: File, digests: Digests) -> None:
    path = f"{toolset.root}/{file.path}"
    try:
        if file.link:
            if os.readlink(path) != file.link:
                raise damaged(toolset, f"{file.path} is another link than it was")
            return
        fd = os.open(path, _FLAGS)
        try:
            mode = os.fstat(fd).st_mode
            if mode & (stat.S_ISUID | stat.S_ISGID):
                raise damaged(toolset, f"{file.path} is set-user-ID or set-group-ID")
            is_file = stat.S_ISREG(mode)
            is_same = is_file and digests.of(fd) == file.sha256
        finally:
            os.close(fd)
    except OSError as error:
        raise damaged(toolset, f"{file.path}: {error.strerror}") from error
    if not is_same:
        raise damaged(toolset, f"{file.path} is not as it was when the set was made")
