"""Whether this host's own processor and kernel run programs of another architecture."""

from __future__ import annotations

from xbuild.errors import BinfmtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.binary.arch import Arch


def runs_by_itself(arch: Arch) -> bool:
    """Execute a tiny program of ``arch`` and tell whether the processor ran it.

    False where a binfmt_misc entry would catch it, since that says nothing of the processor.
    """
    from xbuild.emulation.registry import Missing, judge, read_entries
    from xbuild.emulation.trial import try_kernel

    try:
        if not isinstance(judge(arch, read_entries()), Missing):
            return False
    except BinfmtError:
        pass  # no registry is mounted: nothing can catch it
    try:
        return try_kernel(arch).is_as_expected
    except OSError:
        return False
