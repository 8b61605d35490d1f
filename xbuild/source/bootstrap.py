"""Debian's and Ubuntu's trees, configured, by mmdebstrap(1), for anyone and on any host's kernel.

mmdebstrap runs in a container whose tree is this host's own root, read-only, with a registry of its
own for the new tree's architecture: so it is root where it needs to be, and nothing is registered
or mounted on the host. Packages are checked by apt, with the distribution's keyring.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
from typing import TYPE_CHECKING

from xbuild.binary.arch import arch_named
from xbuild.emulation.packages import package_command
from xbuild.errors import EXIT_SIGNAL_BASE, HostUnable, MirrorUnavailable, SourceError
from xbuild.plan.emulate import way_for
from xbuild.plan.host import Host
from xbuild.plan.make import plan_tree
from xbuild.plan.piping import without_terminal
from xbuild.plan.request import BindRequest, Request
from xbuild.record import GuestPath, HostPath, replace
from xbuild.sandbox.tap import Tap
from xbuild.sandbox.tapped import TappedContainer
from xbuild.source.apt import Progress, explain_output, host_settings, persist
from xbuild.source.mirror import Mirror, find_keyring, find_mirrors
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import survey_at_start

if TYPE_CHECKING:
    from xbuild.sandbox.tap import Stream
    from xbuild.source.kinds import Suite

_HOST = HostPath("/")
_INSIDE = "/mnt"
_TREE = f"{_INSIDE}/tree"
_SETTINGS = "host.conf"
_IN_TREE = '"$1/etc/apt/apt.conf.d/00xbuild-create"'
# mmdebstrap lets its children end in peace when it is told to end. The shell does not, and the
# container ends with it.
_AT_ONCE = ("sh", "-c", '"$@" & wait "$!"', "sh")
_WITH_PACKAGES = ("extracting archives", "installing")
_SAID_BYTES = 1 << 20
# Said for what a container is: it has no /dev/console, and a /proc of its own; and of apt's own
# user, for whom the place of the new tree is closed.
_NO_NEWS = (
    *("skipping creation of ./dev/", "/proc is now bind-mounted", "skipping check/"),
    *("mount: /mnt/tree/proc: permission denied", "more information after failed mount"),
    *("Download is performed unsandboxed", "Key is stored in legacy trusted.gpg keyring"),
)
_UBUNTU_KEYRING = HostPath("/usr/share/keyrings/ubuntu-archive-keyring.gpg")


def bootstrap(suite: Suite, place: HostPath, progress: Progress) -> tuple[str, ...]:
    """Make ``place``/tree, in a directory that has nothing else, and return notes.

    Where a mirror is out of step with itself, or fails, another or the same is tried again. Raises
    MirrorUnavailable, PackageUnavailable, SourceError, HostUnable.
    """
    if shutil.which("mmdebstrap") is None:
        raise HostUnable(
            f"Cannot make {suite.name}: mmdebstrap is not installed", package_command("mmdebstrap")
        )

    def attempt(mirror: Mirror | None) -> tuple[str, ...]:
        return _attempt(suite, mirror, place, progress)

    return persist(_mirrors(suite), attempt, progress)


def _mirrors(suite: Suite) -> tuple[Mirror | None, ...]:
    """Return the mirrors to try; None for what mmdebstrap knows by itself."""
    if suite.mirror is not None:
        return (Mirror(suite.mirror.rstrip("/"), _keyring_of(suite)),)
    if suite.distribution == "ubuntu":
        _keyring_of(suite)
        return (None,)
    return find_mirrors()


def _keyring_of(suite: Suite) -> HostPath:
    if suite.keyring is not None:
        return suite.keyring
    if suite.distribution == "debian":
        return find_keyring()
    if os.path.exists(_UBUNTU_KEYRING):
        return _UBUNTU_KEYRING
    raise MirrorUnavailable(
        "Cannot check Ubuntu's signatures: this host has no Ubuntu archive keyring",
        f"{package_command('ubuntu-keyring')}, or name one with --keyring",
    )


def _attempt(
    suite: Suite, mirror: Mirror | None, place: HostPath, progress: Progress
) -> tuple[str, ...]:
    shutil.rmtree(f"{place}/tree", ignore_errors=True)
    keyring = _copy_keyring(suite, place)
    with open(f"{place}/{_SETTINGS}", "w", encoding="utf-8") as file:
        file.write(host_settings())
    command = _command(suite, mirror, keyring)
    stages = _Stages(suite, progress)
    status, said = _run(_request(command, place), suite, stages)
    lines = said.decode("utf-8", "replace").splitlines()
    telling = [line for line in lines if not any(sign in line for sign in _NO_NEWS)]
    if status and stages.has_packages:
        reason = "; ".join([line[3:] for line in telling if line.startswith("E: ")][:3])
        raise SourceError(
            f"Cannot make {suite.name} for {suite.architecture}: {stages.last} failed: {reason}",
            "make room there" if "No space left" in said.decode("utf-8", "replace") else "",
        )
    if status:
        raise explain_output(
            "\n".join(telling),
            what=f"{suite.name} for {suite.architecture}",
            archive=f"the mirror {mirror.uri}" if mirror else "the mirror that mmdebstrap knows",
            place=place,
            action="mmdebstrap",
        )
    return tuple(line[3:] for line in telling if line.startswith("W: "))


def _copy_keyring(suite: Suite, place: HostPath) -> str | None:
    """Put keys that were named where the container sees them; return what they are called there."""
    if suite.keyring is None:
        return None
    try:
        with open(suite.keyring, "rb") as file:
            content = file.read()
    except OSError as error:
        raise SourceError(f"Cannot read the keyring {suite.keyring}: {error.strerror}") from error
    # apt goes by the name's ending (apt-secure(8)).
    name = "keyring.asc" if content.startswith(b"-----BEGIN") else "keyring.gpg"
    with open(f"{place}/{name}", "wb") as file:
        file.write(content)
    os.chmod(f"{place}/{name}", 0o644)
    return f"{_INSIDE}/{name}"


def _command(suite: Suite, mirror: Mirror | None, keyring: str | None) -> tuple[str, ...]:
    settings = shlex.quote(f"{_INSIDE}/{_SETTINGS}")
    command = [
        *_AT_ONCE,
        *("mmdebstrap", "--mode=root", "--format=directory", "--skip=check/qemu"),
        *("--skip=chroot/mount/sys", "--variant", suite.variant),
        f"--architectures={suite.architecture}",
        f"--setup-hook=cp {settings} {_IN_TREE}",
        f"--customize-hook=rm -f {_IN_TREE}",
    ]
    if suite.include:
        command.append(f"--include={','.join(suite.include)}")
    if keyring is not None:
        command.append(f"--keyring={keyring}")
    command += [suite.suite, _TREE]
    if mirror is not None:
        # Keys that were named are for making the tree: in it, they would be at no such path.
        signed_by = f"[signed-by={mirror.keyring}] " if keyring is None else ""
        command.append(f"deb {signed_by}{mirror.uri} {suite.suite} main")
    return tuple(command)


def _request(command: tuple[str, ...], place: HostPath) -> Request:
    can_idmap = Host.probe().can_idmap(place)
    return Request(
        _HOST,
        command,
        binds=(BindRequest(place, GuestPath(_INSIDE)),),
        environment=(("LC_ALL", "C.UTF-8"), ("TMPDIR", "/tmp"), *_proxies()),
        read_only=True,
        no_sync=True,
        private_users="auto" if can_idmap else "identity",
    )


def _proxies() -> tuple[tuple[str, str], ...]:
    names = ("http_proxy", "https_proxy", "no_proxy")
    return tuple((name, os.environ[name]) for name in names if name in os.environ)


def _run(request: Request, suite: Suite, stages: _Stages) -> tuple[int, bytes]:
    """Run it in a container; return its exit status, and what it said.

    Raises SourceError where a signal ended it, InterpreterError, HostUnable.
    """
    request = without_terminal(request)
    host = Host.probe()
    arch = arch_named(suite.architecture)
    way_for(arch, request, host, override=None, remember=True)  # says what lacks
    with DirectoryReader(_HOST) as reader:
        here = survey_at_start(reader)
        both = tuple(dict.fromkeys((*here.architectures, arch.name)))
        survey = replace(here, architectures=both)
        plan = plan_tree(request, host, reader, remember=True, survey=survey)
    tap = Tap(kept_bytes=_SAID_BYTES, passes_on=False)
    tap.add(stages)
    status = TappedContainer(plan, tap).run()
    if status == EXIT_SIGNAL_BASE + signal.SIGINT:
        raise KeyboardInterrupt
    if status > EXIT_SIGNAL_BASE:
        name = signal.Signals(status - EXIT_SIGNAL_BASE).name
        raise SourceError(f"Making {suite.name} was ended by {name}", "start it again")
    return status, tap.tail()


class _Stages:
    """Tells of mmdebstrap's stages as they come."""

    def __init__(self, suite: Suite, progress: Progress) -> None:
        self._suite = suite
        self._progress = progress
        self._rest = b""
        self.last = ""
        self.has_packages = False  # all are downloaded: a mirror is no reason any more

    def heard(self, stream: Stream, content: bytes) -> None:
        """Take note of some bytes."""
        del stream
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            if line.startswith(b"I: ") and line.endswith(b"...") and b"received signal" not in line:
                self.last = text = line[3:-3].decode("utf-8", "replace")
                self.has_packages |= text.startswith(_WITH_PACKAGES)
                self._progress(f"{self._suite.name} {self._suite.architecture}: {text}", None)
