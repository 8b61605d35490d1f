"""Small images that run, and what a run may leave of them: loop devices, mounts, locks."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator

from tests.capability import require
from tests.crafted import Layout, Link
from tests.images import MIB, Part, make_image
from tests.patience import wait_for
from xbuild.record import HostPath
from xbuild.sandbox.loop import loops_of

BUSYBOX = "/bin/busybox"
_APPLETS = ("sh", "cat", "ls", "sync", "sleep", "touch", "dd", "true", "df", "id", "kill", "stat")
SIZE = 64 * MIB


def small_system(fstab: str = "", **more: bytes | None) -> Layout:
    """Return a root tree of the host's own static busybox; ``more`` are paths, _ for a slash."""
    require("busybox", os.path.exists(BUSYBOX), "busybox-static is not installed")
    with open(BUSYBOX, "rb") as file:
        layout: Layout = {"bin/busybox": file.read()}
    layout |= {f"bin/{name}": Link("busybox") for name in _APPLETS}
    layout |= {f"{name}": None for name in ("proc", "sys", "dev", "run", "tmp", "root", "home")}
    layout |= {"etc/fstab": fstab.encode(), "etc/hosts": b"", "etc/resolv.conf": b""}
    return layout | {path.replace("_", "/"): content for path, content in more.items()}


def pi_image(path: str | os.PathLike[str]) -> HostPath:
    """Write an image like a Raspberry Pi's, with a third partition for /home."""
    fstab = "LABEL=root / ext4 defaults 0 1\nLABEL=home /home ext4 defaults 0 2\n"
    fstab += "LABEL=BOOT /boot/firmware vfat defaults 0 2\n"
    return make_image(
        path,
        layout=[
            Part("boot", "vfat", 40 * MIB, {"config.txt": b"arm_64bit=1\n"}),
            Part("root", "ext4", SIZE, small_system(fstab, boot_firmware=None)),
            Part("home", "ext4", 16 * MIB, {"pi/note": b"at home\n"}),
        ],
    )


def one_filesystem(
    path: str | os.PathLike[str], kind: str, size: int = SIZE, options: tuple[str, ...] = ()
) -> HostPath:
    """Write an image with one partition, a root tree in a file system of ``kind``."""
    known = kernel_filesystems()
    require(kind, kind in known, f"this kernel has no {kind}")
    part = Part("root", kind, size, small_system(), options=options)
    return make_image(path, layout=[part])


def kernel_filesystems() -> frozenset[str]:
    """Return what this kernel mounts without loading a module."""
    with open("/proc/filesystems", encoding="ascii") as file:
        return frozenset(line.split()[-1] for line in file)


def checksum(image: str) -> str:
    """Return the SHA-256 of an image."""
    with open(image, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def assert_free(image: HostPath) -> None:
    """Fail unless no loop device, mount or lock of an image is left, once all is written to it."""
    wait_for(lambda: not _left(image))


def _left(image: HostPath) -> list[str]:
    loops = list(loops_of(image))
    with open(image, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            loops.append("the lock")
    return loops


@contextlib.contextmanager
def running(start: Callable[[], subprocess.Popen[str]]) -> Iterator[subprocess.Popen[str]]:
    """Start a run whose command prints a line when it is there, and end it afterwards."""
    with start() as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "there\n"
            yield process
        finally:
            process.kill()
