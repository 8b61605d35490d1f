"""Probes: what this host can do, found out by doing it; each leaves nothing behind.

A probe is a function from ``Circumstances`` to findings. It acts in a forked child
(``experiment``) and explains a refusal by ``plan.restrictions``. Printing is ``cli.doctor``'s.
"""

from __future__ import annotations

from xbuild.sandbox.probes import emulation, fuse, groups, ids, mounts, namespaces
from xbuild.sandbox.probes.finding import Circumstances, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Probe = Callable[[Circumstances], Finding]

__all__ = ["Circumstances", "Finding", "PROBES", "examine_host"]

PROBES: tuple[Probe, ...] = (
    namespaces.probe_kernel,
    namespaces.probe_openat2,
    namespaces.probe_namespaces,
    namespaces.probe_proc,
    ids.probe_subordinate_ids,
    mounts.probe_idmapped_mount,
    mounts.probe_overlay,
    emulation.probe_interpreters,
    emulation.probe_faults,
    emulation.probe_private_binfmt,
    emulation.probe_host_binfmt,
    mounts.probe_loop_device,
    fuse.probe_fuse,
    groups.probe_cgroup,
)
"""In the order of a table: what a run needs first stands first."""


def examine_host(circumstances: Circumstances) -> tuple[Finding, ...]:
    """Run every probe. Takes a few seconds, most of them for trying each interpreter."""
    return tuple(probe(circumstances) for probe in PROBES)
