"""What a guest may do in its own namespaces: capabilities, set-user-ID programs, system calls."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.native_guest import NativeGuest, fill_native_tree
from tests.runs import Runner, notes
from tests.users import User
from xbuild.plan.privileges import CAPABILITIES, WITHHELD
from xbuild.record import HostPath

Fresh = Callable[..., HostPath]

STATUS = """
import json
with open("/proc/self/status") as file:
    print(json.dumps(dict(line.rstrip("\\n").split(":\\t", 1) for line in file)))
"""
# Numbers of x86_64 and of the generic table, in this order: asm/unistd.h.
CALLS = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
numbers = {
    "kexec_load": (246, 104), "finit_module": (313, 273), "delete_module": (176, 106),
    "keyctl": (250, 219), "add_key": (248, 217), "bpf": (321, 280), "swapon": (167, 224),
    "perf_event_open": (298, 241), "io_uring_setup": (425, 425), "syslog": (103, 116),
    "userfaultfd": (323, 282), "clock_settime": (227, 112), "open_by_handle_at": (304, 265),
    "quotactl": (179, 60), "acct": (163, 89),
}
column = 0 if os.uname().machine == "x86_64" else 1
found = {}
for name, row in numbers.items():
    ctypes.set_errno(0)
    result = libc.syscall(row[column], -1, 0, 0, 0, 0)
    found[name] = ctypes.get_errno() if result == -1 else 0
ctypes.set_errno(0)
found["vsock"] = ctypes.get_errno() if libc.socket(40, 1, 0) == -1 else 0
reading, writing = os.pipe()
try:
    os.fsync(reading)
    found["fsync"] = 0
except OSError as error:
    found["fsync"] = error.errno
found["mount a block device"] = ctypes.get_errno() if libc.mount(
    b"/dev/vda", b"/tmp", b"ext4", 0, None) == -1 else 0
print(json.dumps(found))
"""


@pytest.fixture
def native(runner: Runner, new_tree: Callable[[User], HostPath]) -> NativeGuest:
    """The host's Python inside, for each kind of person."""
    tree = new_tree(runner.user)
    fill_native_tree(tree, runner.user)
    return NativeGuest(runner.user, runner.xbuild, tree)


def asked(guest: NativeGuest, program: str, *options: str) -> dict[str, Any]:  # Any: JSON
    found: dict[str, Any] = json.loads(
        NativeGuest(guest.user, guest.xbuild, guest.tree, options=options).python(program)
    )
    return found


def held(status: dict[str, Any], field: str = "CapEff") -> set[str]:
    bits = int(status[field], 16)
    return {name for number, name in enumerate(CAPABILITIES) if bits >> number & 1}


def test_default_capabilities(native: NativeGuest) -> None:
    status = asked(native, STATUS)
    for field in ("CapEff", "CapPrm", "CapBnd"):
        assert held(status, field) == set(CAPABILITIES) - WITHHELD
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"], status["Seccomp_filters"]) == ("1", "2", "1")


def test_capabilities_as_asked(native: NativeGuest) -> None:
    status = asked(native, STATUS, "--capability", "CAP_SYS_TIME,bpf", "--drop-capability=net_raw")
    assert held(status) == (set(CAPABILITIES) - WITHHELD - {"net_raw"}) | {"sys_time", "bpf"}
    assert held(asked(native, STATUS, "--drop-capability", "all")) == set()
    assert held(asked(native, STATUS, "--capability", "all")) == set(CAPABILITIES)


def test_another_user_has_no_capabilities(root: Runner) -> None:
    script = "grep -E 'Cap(Eff|Prm|Inh|Amb)' /proc/self/status"
    shown = root.shell("arm64", script, "--user", "daemon", "--capability", "all")
    assert {line.split()[1] for line in shown.splitlines()} == {"0" * 16}


def test_unknown_capability_is_named(root: Runner) -> None:
    done = root.run("--capability", "CAP_FLY", root.tree("arm64"), "true")
    assert done.returncode == 2
    assert "No such capability: 'fly'" in done.stderr


def test_kernel_interfaces_that_no_build_needs(native: NativeGuest) -> None:
    found = asked(native, CALLS)
    missing = {"keyctl", "add_key", "io_uring_setup"}
    for name in missing:
        assert found.pop(name) == errno.ENOSYS, name
    assert found.pop("vsock") == errno.EAFNOSUPPORT
    assert found.pop("fsync") == errno.EINVAL
    assert set(found.values()) == {errno.EPERM}, found


def test_filter_can_be_switched_off(native: NativeGuest) -> None:
    status = asked(native, STATUS, "--seccomp=off")
    assert status["Seccomp"] == "0"
    found = asked(native, CALLS, "--seccomp=off")
    assert found["keyctl"] not in (errno.ENOSYS, errno.EPERM)
    # What the kernel itself keeps to the host's root stays refused.
    assert {found[name] for name in ("swapon", "mount a block device")} == {errno.EPERM}


def test_no_sync(native: NativeGuest) -> None:
    """fsync of a pipe is an error (EINVAL), but where nobody looks."""
    assert asked(native, CALLS, "--no-sync")["fsync"] == 0
    assert asked(native, STATUS, "--no-sync")["Seccomp_filters"] == "2"
    assert asked(native, CALLS, "--no-sync", "--seccomp=off")["fsync"] == 0


def test_emulated_sync_does_nothing(root: Runner) -> None:
    """qemu's own system calls are the host's, under the same filter."""
    script = "sync; sync /etc; dd if=/dev/zero of=/tmp/file bs=1 count=1 conv=fsync 2>&1; echo done"
    assert root.shell("arm64", script, "--no-sync").endswith("done\n")


def test_set_user_id_gains_nothing_unless_asked_for(
    fresh_tree: Fresh, root: Runner, ranged: Runner
) -> None:
    for runner in (root, ranged):
        tree = fresh_tree("arm64", runner.user)
        shutil.copy(f"{tree}/usr/bin/id", f"{tree}/usr/bin/id-root")
        os.chown(f"{tree}/usr/bin/id-root", runner.user.uid, runner.user.gid)
        os.chmod(f"{tree}/usr/bin/id-root", 0o4755)
        done = runner.run("--user", "nobody", tree, "id-root", "-u")
        assert (done.returncode, done.stdout) == (0, "65534\n")
        assert any("/usr/bin/id-root is a set-user-ID program" in note for note in notes(done))
        done = runner.run("--setuid", "--user", "nobody", tree, "id-root", "-u")
        assert (done.returncode, done.stdout, notes(done)) == (0, "0\n", [])


def test_namespaces_can_be_made_inside(native: NativeGuest) -> None:
    """The filter keeps nobody from a container in the container."""
    script = """
import os, subprocess
print(subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork",
    "sh", "-c", "mount -t tmpfs none /tmp && id -u"], capture_output=True, text=True).stdout)
"""
    assert native.python(script).strip() == "0"
