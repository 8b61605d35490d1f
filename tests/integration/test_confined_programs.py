"""What tar, umoci and mkfs have, were an archive or a tree to take them over: their place alone.

As root they make files of any owner there; tried from inside, by Python in the place of tar(1).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.capability import require
from xbuild.record import GuestPath, HostPath
from xbuild.sandbox.confined import ConfinedProgram, Place

WORK = """
import os, stat
os.mkdir("/tree/d")
os.mknod("/tree/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
os.chown("/tree/d", 1234, 5678)
os.setxattr("/tree/d", "trusted.overlay.opaque", b"y")
"""
ATTACK = """
import ctypes, os, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, result): print(name, "done" if result == 0 else os.strerror(ctypes.get_errno()))
tried("mount", libc.mount(b"x", b"/tree", b"devtmpfs", 0, None))
tried("unshare", libc.unshare(0x20000))
tried("trace", libc.ptrace(16, PARENT, 0, 0))
for path in ("/etc/passwd", "/proc", "/tree/null", SECRET):
    try:
        os.open(path, os.O_RDONLY)
        print(path, "opened")
    except OSError:
        pass
print(*(name for _, name in socket.if_nameindex()))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    require("root", os.geteuid() == 0, "only root makes files of any owner")
    place = tmp_path / "tree"
    place.mkdir()
    return place


def run(script: str, place: Path) -> list[str]:
    places = (Place(HostPath(str(place)), GuestPath("/tree"), writable=True),)
    reading, writing = os.pipe()
    argv = ("python3", "-ISc", script)
    with (
        open(reading, "rb") as said,
        ConfinedProgram(argv, places, None, purpose="test", stdout=writing) as program,
    ):
        os.close(writing)
        lines = said.read().decode().splitlines()
        ended = program.wait()
    assert ended.status == 0, ended.said
    return lines


def test_root_s_program_makes_what_a_tree_has(place: Path) -> None:
    run(WORK, place)
    made = (place / "d").stat()
    assert (made.st_uid, made.st_gid) == (1234, 5678)
    assert os.getxattr(place / "d", "trusted.overlay.opaque") == b"y"
    assert stat.S_ISCHR((place / "null").stat().st_mode)


def test_root_s_program_does_nothing_else_by_being_root(place: Path) -> None:
    run(WORK, place)
    secret = place.parent / "secret"
    secret.write_text("secret")
    script = ATTACK.replace("PARENT", str(os.getpid())).replace("SECRET", repr(str(secret)))
    refused = os.strerror(1)
    assert run(script, place) == [f"{what} {refused}" for what in ("mount", "unshare", "trace")] + [
        "lo"
    ]
