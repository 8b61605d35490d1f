"""Real Debian trees that boot, by init: unpacked, configured by their own dpkg once, and kept.

Configuring runs every package's maintainer scripts under emulation, which takes minutes; the
outcome is an archive beside that of the packages, found again by later sessions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from tests.capability import require
from tests.patience import await_lock
from tests.runs import Runner
from tests.users import User
from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath
from xbuild.source.cache import locked
from xbuild.source.debian import BASE_PACKAGES, fetch_debian_archive, unpack_tree

_COMMON = (
    *(*BASE_PACKAGES, "debconf", "debianutils", "dpkg", "init-system-helpers", "libpam-runtime"),
    *("login", "mount", "passwd", "perl-base", "sysvinit-utils", "usr-is-merged", "util-linux"),
)
INITS: dict[str, tuple[str, tuple[str, ...]]] = {
    "systemd-252": ("bookworm", ("systemd", "systemd-sysv", "dbus")),
    "systemd-257": ("trixie", ("systemd", "systemd-sysv", "dbus")),
    "sysvinit": ("bookworm", ("sysvinit-core", "initscripts")),
    "openrc": ("bookworm", ("sysvinit-core", "initscripts", "openrc")),
    "runit": ("bookworm", ("runit", "runit-init")),
}
_FORMAT = "1"  # raise it when the same packages are to be configured otherwise
_CONFIGURE = ("--no-sync", "--setenv", "DEBIAN_FRONTEND=noninteractive", "--network", "none")
# By this, postinst of sysvinit-core knows not to wait most of a minute for an init to answer.
_AS_UNDER_SYSTEMD = ("--tmpfs", "/run/systemd/system")
_PATIENCE_S = 300.0  # emulated, and on a machine that may have other things to do


def unpack_bootable(init: str, place: HostPath, user: User, xbuild: Sequence[str]) -> HostPath:
    """Make the new directory ``place`` a configured arm64 tree with that init, ``user``'s."""
    archive = _configured(init, xbuild)
    if user.is_self:
        return unpack_tree(archive, place)
    os.mkdir(place)
    os.chown(place, user.uid, user.gid)
    with open(archive, "rb") as content:
        command = user.argv(["tar", "-xp", "--no-same-owner", "-C", place])
        subprocess.run(command, stdin=content, check=True)
    return place


def _configured(init: str, xbuild: Sequence[str]) -> HostPath:
    suite, packages = INITS[init]
    try:
        archive = fetch_debian_archive(
            "arm64", (suite,), (*_COMMON, *packages), progress=lambda _text, _fraction: None
        )
    except MirrorUnavailable as error:
        require("mirror", False, error.message)
        raise
    done = HostPath(f"{archive.removesuffix('.tar')}-configured-{_FORMAT}.tar")
    with locked(HostPath(f"{os.path.dirname(archive)}/configured"), lambda _text, _fraction: None):
        if not os.path.exists(done):
            _configure(archive, done, xbuild, is_systemd="systemd" in packages)
    return done


def _configure(
    archive: HostPath, done: HostPath, xbuild: Sequence[str], *, is_systemd: bool
) -> None:
    work = tempfile.mkdtemp(prefix="configuring-", dir="/var/tmp")
    try:
        tree = unpack_tree(archive, HostPath(f"{work}/tree"))
        policy = f"{tree}/usr/sbin/policy-rc.d"
        with open(policy, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\nexit 101\n")  # no service starts here
        os.chmod(policy, 0o755)
        options = (*_CONFIGURE, *(() if is_systemd else _AS_UNDER_SYSTEMD))
        command = [*xbuild, "run", *options, tree, "dpkg", "--configure", "-a"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
        os.unlink(policy)
        subprocess.run(
            ["tar", "-c", "--numeric-owner", "-f", f"{work}/done.tar", "-C", tree, "."], check=True
        )
        shutil.move(f"{work}/done.tar", f"{done}.part")
        os.rename(f"{done}.part", done)
    finally:
        shutil.rmtree(work)


class Booted:
    """A tree that was started by ``xbuild start --boot``."""

    def __init__(self, runner: Runner, name: str, begin: list[str]) -> None:
        self.name = name
        self._runner = runner
        self._begin = begin
        self._log: str | None = None

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run xbuild as whoever started it."""
        user = self._runner.user
        return subprocess.run(
            [*self._begin, *user.argv([*self._runner.xbuild, *words])],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            env=user.environment(), cwd=user.home, timeout=_PATIENCE_S,
        )  # fmt: skip

    def inside(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command that joins."""
        return self.run("exec", self.name, "--", *words)

    def log(self) -> str:
        """Return what was on the console so far, or until the end."""
        return self.run("logs", self.name).stdout if self._log is None else self._log

    def forget(self) -> None:
        """End it, and keep no more than what was on its console."""
        self.run("stop", "--kill-timeout", "0.2", self.name)
        self._log = self.log()
        if self._runner.kind == "root":
            os.unlink(f"/var/log/xbuild/{self.name}.log")
            with suppress(OSError):
                os.rmdir("/var/log/xbuild")

    def wait_for(self, text: str, *, times: int = 1) -> None:
        """Wait until the console has shown ``text`` so often."""
        end = time.monotonic() + _PATIENCE_S
        while self.log().count(text) < times:
            assert time.monotonic() < end, self.log()[-3000:]
            time.sleep(0.2)

    def wait_until_joined(self, *words: str) -> None:
        """Wait until a command that joins succeeds."""
        end = time.monotonic() + _PATIENCE_S
        while (done := self.inside(*words)).returncode != 0:
            assert time.monotonic() < end, done.stderr
            time.sleep(0.2)

    def stop(self, *options: str) -> int:
        """Stop it and return its exit status."""
        with subprocess.Popen(
            self._runner.user.argv([*self._runner.xbuild, "wait", self.name]),
            env=self._runner.user.environment(), cwd=self._runner.user.home,
        ) as waiting:  # fmt: skip
            await_lock(waiting.pid)
            done = self.run("stop", *options, self.name)
            assert done.returncode == 0, done.stderr
            return waiting.wait(_PATIENCE_S)

    def wait(self) -> int:
        """Wait for its end and return its exit status."""
        return self.run("wait", self.name).returncode


@contextmanager
def boot(
    runner: Runner, tree: HostPath, *options: str, begin: Sequence[str] = ()
) -> Iterator[Booted]:
    """Boot a tree; ``begin`` is what its command line begins with. It has ended afterwards."""
    booted = Booted(runner, f"boot-{os.getpid()}-{time.monotonic_ns()}", list(begin))
    done = booted.run("start", "--boot", "--name", booted.name, *options, tree)
    assert done.returncode == 0, done.stderr
    try:
        yield booted
    finally:
        booted.forget()
