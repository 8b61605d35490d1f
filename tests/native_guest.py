"""A tree of the host's own architecture whose programs are the host's: its /usr, bound read-only.

With the host's Python inside, a guest has every system call at hand, without qemu's limits.
"""

from __future__ import annotations

import os
import stat
import subprocess
from typing import Any

from tests.capability import require
from tests.users import User
from xbuild.binary.arch import host_arch
from xbuild.binary.write import tiny_program
from xbuild.record import HostPath, Record

PYTHON = "/usr/bin/python3"
_DIRECTORIES = ("bin", "dev", "etc", "proc", "ro", "root", "run", "rw", "sys", "tmp", "usr")
_LIBRARIES = ("lib", "lib32", "lib64", "libx32")


class NativeGuest(Record):
    """``tree`` run by ``user``; ``prefix`` comes before xbuild, ``options`` after ``run``."""

    user: User
    xbuild: tuple[str, ...]
    tree: HostPath
    prefix: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def argv(self, *command: str, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command line that runs ``command`` inside."""
        own = (*self.options, *library_binds(), *options)
        return [*self.prefix, *self.xbuild, "run", *own, self.tree, "--", *command]

    def run(
        self, *command: str, options: tuple[str, ...] = (), **settings: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` inside; ``settings`` are User.run's."""
        return self.user.run(self.argv(*command, options=options), **settings)

    def python(self, program: str, *arguments: str, **settings: Any) -> str:
        """Return what a program of the host's Python prints inside; it must not fail."""
        done = self.run(PYTHON, "-I", "-c", program, *arguments, **settings)
        assert done.returncode == 0, f"{done.returncode}\n{done.stdout}{done.stderr}"
        assert isinstance(done.stdout, str)
        return done.stdout


def library_binds() -> tuple[str, ...]:
    """Return the options that show the host's programs and libraries inside."""
    apart = [f"--bind-ro=/{n}" for n in _LIBRARIES if os.path.isdir(f"/{n}") and not _is_link(n)]
    return ("--bind-ro=/usr", *apart)


def _is_link(name: str) -> bool:
    return os.path.islink(f"/{name}")


def fill_native_tree(tree: HostPath, owner: User) -> None:
    """Fill an empty tree for ``owner``: with next to nothing but places to mount on."""
    require("python3", os.path.exists(PYTHON), f"{PYTHON} is not there to attack with")
    for name in _DIRECTORIES:
        os.makedirs(f"{tree}/{name}")
    for name in _LIBRARIES:
        if _is_link(name):
            os.symlink(os.readlink(f"/{name}"), f"{tree}/{name}")
        elif os.path.isdir(f"/{name}"):
            os.mkdir(f"{tree}/{name}")
    for name, content in (
        ("bin/true", tiny_program(host_arch(), b"")),
        ("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/hosts", b"127.0.0.1 localhost\n"),
        ("etc/resolv.conf", b""),
        ("rofile", b""),
    ):
        with open(f"{tree}/{name}", "wb") as file:
            file.write(content)
    os.chmod(f"{tree}/bin/true", 0o755)
    if os.geteuid() == 0 and owner.is_self:
        os.mknod(f"{tree}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(f"{tree}/disk", stat.S_IFBLK | 0o666, os.stat("/").st_dev)
    subprocess.run(["chown", "-hR", f"{owner.uid}:{owner.gid}", tree], check=True)
