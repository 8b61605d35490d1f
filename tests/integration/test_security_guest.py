"""A hostile guest with every system call, and what it gets: nothing (hostile_guest.py).

Root with ids of its own, root with the host's ids, root of an outer container whose ids are the
host's, and two kinds of ordinary users.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Literal, get_args

import pytest

from tests.native_guest import PYTHON, NativeGuest, fill_native_tree
from tests.runs import KINDS, Kind, Runner
from tests.users import User
from xbuild.record import HostPath

Mode = Literal["shifted", "identity", "nested", "range", "plain"]
MODES: tuple[Mode, ...] = get_args(Mode)
ROOT_MODES: tuple[Mode, ...] = ("shifted", "identity")
GROUPS = ("mounts", "file systems", "process 1", "kernel", "network")
# Whatever an attack by root might do to mounts and network is done to namespaces of the test's own.
APART = ("unshare", "--mount", "--net", "--propagation=private", "--")

OUTER_CONTAINER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
MS_REC_PRIVATE = ctypes.c_ulong(0x4000 | 1 << 18)
entered, mapped = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    assert libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET) == 0
    os.write(entered[1], b"x")
    os.read(mapped[0], 1)
    os.setresuid(0, 0, 0)
    if os.fork() == 0:
        assert libc.mount(None, b"/", None, MS_REC_PRIVATE, None) == 0
        assert libc.mount(b"proc", b"/proc", b"proc", 0, None) == 0
        os.execv(sys.argv[1], sys.argv[1:])
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]) & 255)
os.read(entered[0], 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{child}/{name}", "w") as file:
        file.write("0 0 65536")
os.write(mapped[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]) & 255)
"""

LOOPBACK_UP_THEN = """
import fcntl, socket, struct, subprocess, sys
name = struct.pack("16sH22x", b"lo", 1)
anything = socket.socket()
fcntl.ioctl(anything, 0x8914, name)
answer = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=True).stdout
is_up = struct.unpack("16sH22x", fcntl.ioctl(anything, 0x8913, name))[1] & 1
print(is_up, answer)
"""

PREFIXES: dict[Mode, tuple[str, ...]] = {
    "shifted": APART,
    "identity": APART,
    "nested": (PYTHON, "-I", "-c", OUTER_CONTAINER),
}

Guests = Callable[[Mode], NativeGuest]


@pytest.fixture
def guest_of(runner_of: Callable[[Kind], Runner], new_tree: Callable[[User], HostPath]) -> Guests:
    def make(mode: Mode) -> NativeGuest:
        runner = runner_of(mode if mode in KINDS else "root")
        tree = new_tree(runner.user)
        fill_native_tree(tree, runner.user)
        prefix = PREFIXES.get(mode, ())
        options = ("--private-users=identity",) if mode == "identity" else ()
        return NativeGuest(runner.user, runner.xbuild, tree, prefix, options)

    return make


@pytest.fixture(scope="module")
def answers() -> dict[Mode, dict[str, dict[str, str]]]:
    """Outcomes by mode and group: each guest attacks once."""
    return {}


@pytest.fixture(params=MODES)
def outcomes(
    request: pytest.FixtureRequest,
    guest_of: Guests,
    answers: dict[Mode, dict[str, dict[str, str]]],
) -> dict[str, dict[str, str]]:
    """Outcomes of all attacks in one mode, by group."""
    mode: Mode = request.param
    if mode not in answers:
        guest = guest_of(mode)
        answers[mode] = {group: attack(guest, group) for group in GROUPS}
    return answers[mode]


def attack(guest: NativeGuest, group: str) -> dict[str, str]:
    """Let a guest attack, on a read-only tree with binds, and return what came of it."""
    beside = os.path.dirname(guest.tree)
    options = ["--read-only"]
    for name, option in (("ro", "--bind-ro"), ("rw", "--bind")):
        source = f"{beside}/{name}"
        if not os.path.isdir(source):
            os.mkdir(source)
            with open(f"{source}/file", "w"):
                pass
            for path in (source, f"{source}/file"):
                os.chown(path, guest.user.uid, guest.user.gid)
        options.append(f"{option}={source}:/{name}")
    options.append(f"--bind-ro={beside}/ro/file:/rofile")
    with open(os.path.join(os.path.dirname(__file__), "hostile_guest.py")) as file:
        program = file.read()
    found: dict[str, str] = json.loads(guest.python(program, group, options=tuple(options)))
    return found


def succeeded(outcomes: dict[str, str]) -> list[str]:
    """Return the names of attacks that were not refused."""
    return [name for name, outcome in outcomes.items() if outcome == "SUCCEEDED"]


def test_read_only_stays_read_only(outcomes: dict[str, dict[str, str]]) -> None:
    """The one success is the bind that is not read-only: proof that the question is well put."""
    assert succeeded(outcomes["mounts"]) == ["write /rw"]
    refusals = set(outcomes["mounts"].values()) - {"SUCCEEDED"}
    assert refusals <= {"EPERM", "EACCES", "EROFS", "EINVAL"}
    assert outcomes["mounts"]["write /ro: open"] == "EROFS"


def test_host_file_systems_cannot_be_mounted(outcomes: dict[str, dict[str, str]]) -> None:
    assert succeeded(outcomes["file systems"]) == []
    assert outcomes["file systems"]["cgroup namespace"] == "ENOSPC"


def test_process_one_is_closed(outcomes: dict[str, dict[str, str]]) -> None:
    assert succeeded(outcomes["process 1"]) == []


def test_kernel_refuses(outcomes: dict[str, dict[str, str]]) -> None:
    assert succeeded(outcomes["kernel"]) == []
    assert outcomes["kernel"]["reboot"] == "EPERM"


def test_network_refuses(outcomes: dict[str, dict[str, str]]) -> None:
    assert succeeded(outcomes["network"]) == []


@pytest.mark.parametrize("mode", ROOT_MODES)
def test_interface_of_the_host_stays_up(guest_of: Guests, mode: Mode) -> None:
    guest = guest_of(mode)
    outside = (*APART, PYTHON, "-I", "-c", LOOPBACK_UP_THEN)
    with open(os.path.join(os.path.dirname(__file__), "hostile_guest.py")) as file:
        inner = guest.argv(PYTHON, "-I", "-c", file.read(), "take down")[len(guest.prefix) :]
    done = guest.user.run([*outside, *inner])
    assert done.stdout == '1 {"take down": "EPERM"}\n', done.stderr
