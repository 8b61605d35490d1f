"""The ways of running a program in a foreign tree that xbuild is compared with.

They need an entry in the host's binfmt_misc registry, which xbuild does not: ``enter_private``
gives this process a user-visible one of its own, in a namespace that ends with it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

from xbuild.binary.arch import arch_named
from xbuild.emulation.interpreters import find_interpreter
from xbuild.emulation.rules import derive_rule

_CLONE_NEWNS = 0x00020000


def enter_private(arch_name: str) -> None:
    """Move to a private mount namespace whose binfmt_misc runs ``arch_name``; needs root.

    The registry belongs to the user namespace, so that the entry is removed again by
    ``leave_private``. Raises SystemExit where an entry of that name exists.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        sys.exit(f"bench: cannot unshare mounts: {os.strerror(ctypes.get_errno())}; run as root")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    registry = Path("/proc/sys/fs/binfmt_misc")
    if not (registry / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(registry)], check=True)
    arch = arch_named(arch_name)
    rule = derive_rule(arch, interpreter=find_interpreter(arch).path, name=f"bench-{arch.name}")
    (registry / "register").write_bytes(rule.line())


def leave_private(arch_name: str) -> None:
    """Remove the entry."""
    entry = Path(f"/proc/sys/fs/binfmt_misc/bench-{arch_named(arch_name).name}")
    if entry.exists():
        entry.write_text("-1")


def peers(tree: str, command: list[str]) -> dict[str, list[str]]:
    """Return the argument lists of the peers that this host has, by name."""
    chroot = ["chroot", tree, *command]
    candidates = {
        "chroot": chroot,
        "unshare": ["unshare", "-m", "-p", "-f", "-u", "-i", *chroot],
        "bubblewrap": [
            *("bwrap", "--bind", tree, "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),
            *("--unshare-pid", "--unshare-ipc", "--unshare-uts", *command),
        ],
        "systemd-nspawn": [
            *("systemd-nspawn", "-q", "-D", tree, "--register=no", "--keep-unit", "--as-pid2"),
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe"),
            *command,
        ],
    }
    return {name: argv for name, argv in candidates.items() if shutil.which(argv[0])}
