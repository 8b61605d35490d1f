"""Giving up privileges in a process that is about to start a guest's command, for good."""

from __future__ import annotations

import os

from xbuild.plan.privileges import CAPABILITIES
from xbuild.sandbox import _linux
from xbuild.sandbox.filters import PROGRAMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.plan.privileges import FilterCalls, LimitPrivileges


def limit_privileges(step: LimitPrivileges) -> None:
    """Take capabilities from the bounding set, and set no_new_privs. Raises OSError."""
    for name in step.dropped:
        try:
            _linux.prctl(_linux.PR_CAPBSET_DROP, CAPABILITIES.index(name))
        except OSError as error:
            if error.errno != _linux.EINVAL:  # newer than this kernel: nobody has it
                raise
    if step.no_new_privs:
        _linux.prctl(_linux.PR_SET_NO_NEW_PRIVS, 1)


def filter_calls(step: FilterCalls) -> None:
    """Install a seccomp filter in this process. Raises OSError."""
    _linux.seccomp_filter(bytes.fromhex(PROGRAMS[os.uname().machine][step.filter]))
