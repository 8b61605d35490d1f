"""Trials on hosts that forbid what they would rather use."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.capability import require
from xbuild.emulation.trial import TRIAL_STATUS, TRIAL_TEXT

_CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_TRIAL = """
from xbuild.binary.arch import host_arch
from xbuild.emulation.trial import try_kernel
outcome = try_kernel(host_arch())
print(outcome.status, outcome.output)
"""


def test_a_trial_needs_no_executable_memory_files() -> None:
    sysctl = "/proc/sys/vm/memfd_noexec"  # of a PID namespace, since Linux 6.3
    require("memfd_noexec", os.path.exists(sysctl), "this kernel has no vm.memfd_noexec")
    namespaces = ["unshare", "--user", "--map-root-user", "--mount-proc", "--pid", "--fork"]
    script = f'echo 2 > {sysctl} || exit 77; exec "$@"'
    done = subprocess.run(
        [*namespaces, "sh", "-c", script, "sh", sys.executable, "-c", _TRIAL],
        capture_output=True,
        text=True,
        cwd=_CHECKOUT,
        check=False,
    )
    require("memfd_noexec", done.returncode != 77, done.stderr)
    assert done.stdout == f"{TRIAL_STATUS} {TRIAL_TEXT!r}\n", done.stderr
