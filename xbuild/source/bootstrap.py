"""Debian's and Ubuntu's trees, configured, by mmdebstrap(1), for anyone and on any host's kernel.

mmdebstrap runs in a container whose tree is this host's own root, read-only, with a registry of its
own for the new tree's architecture: so it is root where it needs to be, and nothing is registered
or mounted on the host. Packages are checked by apt, with the distribution's keyring.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
from typing import TYPE_CHECKING

from xbuild.binary.arch import arch_named
from xbuild.emulation.packages import package_command
from xbuild.errors import EXIT_SIGNAL_BASE, HostUnable, SourceError
from xbuild.plan.emulate import way_for
from xbuild.plan.host import Host
from xbuild.plan.make import plan_tree
from xbuild.plan.piping import without_terminal
from xbuild.plan.request import BindRequest, Request
from xbuild.record import GuestPath, HostPath, replace
from xbuild.sandbox.room import MORE_ROOM, RESERVE, has_room
from xbuild.sandbox.tap import Tap
from xbuild.sandbox.tapped import TappedContainer
from xbuild.source import ubuntu
from xbuild.source.apt import Progress, explain_output, host_settings, lack_of_room, persist
from xbuild.source.bootstrap_stages import BootstrapStages, of_last_stage
from xbuild.source.mirror import KEYRINGS, Mirror, find_keyring, find_mirrors
from xbuild.source.sources_list import sources_of, updates_of
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import survey_at_start

if TYPE_CHECKING:
    from xbuild.source.kinds import Suite

_HOST = HostPath("/")
_INSIDE = "/mnt"
_TREE = f"{_INSIDE}/tree"
_SETTINGS = "host.conf"
_SETTINGS_IN_TREE = '"$1/etc/apt/apt.conf.d/00xbuild-create"'
_SOURCES = "sources.list"
# mmdebstrap lets its children end in peace when it is told to end. The shell does not, and the
# container ends with it.
_AT_ONCE = ("sh", "-c", '"$@" & wait "$!"', "sh")
# What a mirror is to blame for, whenever it shows.
_OF_A_MIRROR = ("Unable to locate package", "Failed to fetch ", "Unable to fetch ")
# mmdebstrap fetches what is besides the essential packages only when those are configured: minutes
# later, where they are emulated. So it is fetched, and what does not exist is known, before.
_FETCH_INCLUDED = """echo "I: downloading packages to include..." >&2
env --chdir="$1" APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -q -y --download-only install """
_SAID_BYTES = 1 << 20
_FAILED_PACKAGE = re.compile(
    r"^dpkg: error processing (?:package|archive) (?P<name>\S+) \(.*\):\n (?P<why>.+)$",
    re.MULTILINE,
)
# Said for what a container is: it has no /dev/console, and a /proc of its own; and of apt's own
# user, for whom the place of the new tree is closed.
_NO_NEWS = (
    *("skipping creation of ./dev/", "/proc is now bind-mounted", "skipping check/"),
    *("mount: /mnt/tree/proc: permission denied", "more information after failed mount"),
    *("Download is performed unsandboxed", "Key is stored in legacy trusted.gpg keyring"),
)


def bootstrap(suite: Suite, place: HostPath, progress: Progress) -> tuple[str, ...]:
    """Make ``place``/tree, in a directory that has nothing else, and return notes.

    Where a mirror is out of step with itself, or fails, another or the same is tried again. Raises
    MirrorUnavailable, PackageUnavailable, SourceError, HostUnable.
    """
    mirrors = mirrors_for(suite, HostPath(os.path.dirname(place)))

    def attempt(mirror: Mirror) -> tuple[str, ...]:
        return _attempt(suite, mirror, place, progress)

    return persist(mirrors, attempt, progress)


def mirrors_for(suite: Suite, directory: HostPath) -> tuple[Mirror, ...]:
    """Return the mirrors to try for a tree in ``directory``.

    Raises what is wrong before anything is done: MirrorUnavailable, SourceError, HostUnable.
    """
    if shutil.which("mmdebstrap") is None:
        raise HostUnable(
            f"Cannot make {suite.name}: mmdebstrap is not installed", package_command("mmdebstrap")
        )
    if not has_room(directory):
        raise SourceError(
            f"Cannot make {suite.name}: less than {RESERVE >> 20} MiB are left in {directory}",
            MORE_ROOM,
        )
    mirrors = _mirrors(suite)
    _read_keyring(mirrors[0].keyring)
    return mirrors


def _mirrors(suite: Suite) -> tuple[Mirror, ...]:
    """Return the mirrors to try. Raises MirrorUnavailable."""
    if suite.distribution == "debian":
        if suite.mirror is None:
            return find_mirrors(suite.keyring)
        return (Mirror(suite.mirror.rstrip("/"), suite.keyring or find_keyring()),)
    keyring = suite.keyring or ubuntu.find_keyring("--keyring")
    archives = (
        ubuntu.find_archives(suite.architecture)
        if suite.mirror is None
        else (suite.mirror.rstrip("/"),)
    )
    return tuple(Mirror(uri, keyring, "Ubuntu", ubuntu.COMPONENTS) for uri in archives)


def _attempt(suite: Suite, mirror: Mirror, place: HostPath, progress: Progress) -> tuple[str, ...]:
    shutil.rmtree(f"{place}/tree", ignore_errors=True)
    _write(f"{place}/{_SETTINGS}", host_settings())
    # Keys that were named are for making the tree: in it, they would be at no such path.
    kept = mirror.keyring if mirror.keyring in (ubuntu.KEYRING, *KEYRINGS) else ""
    sources = (*sources_of(suite, mirror, kept), *updates_of(suite, mirror, kept))
    _write(f"{place}/{_SOURCES}", "\n".join((*sources, "")))
    keyring = _copy_keyring(mirror.keyring, place)
    command = _command(suite, sources_of(suite, mirror, keyring))
    stages = BootstrapStages(f"{suite.name} {suite.architecture}", progress)
    status, said = _run(_request(command, place), suite, stages)
    text = said.decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if not any(sign in line for sign in _NO_NEWS)]
    if status:
        raise _explain(of_last_stage("\n".join(lines)), suite, mirror, stages, place)
    return tuple(line[3:] for line in lines if line.startswith("W: "))


def _explain(
    said: str, suite: Suite, mirror: Mirror, stages: BootstrapStages, place: HostPath
) -> SourceError:
    what = f"{suite.name} for {suite.architecture}"
    if lacks_room := lack_of_room(said):
        where = os.path.dirname(place)
        return SourceError(
            f"Cannot make {what}: no room is left in {where}: {lacks_room}", MORE_ROOM
        )
    failed = tuple(_FAILED_PACKAGE.finditer(said))
    if failed:
        reasons = "; ".join(f"{each['name']}: {each['why']}" for each in failed[:3])
        return SourceError(f"Cannot make {what}: {reasons}", _last_words(said, failed[0]["name"]))
    if stages.has_packages and not any(sign in said for sign in _OF_A_MIRROR):
        reason = "; ".join([line[3:] for line in said.splitlines() if line.startswith("E: ")][:3])
        return SourceError(
            f"Cannot make {what}: {stages.last} failed: {reason}",
            "without --include, or with another --variant, it may be made: see mmdebstrap(1)",
        )
    archive = f"the mirror {mirror.uri}"
    return explain_output(said, what=what, archive=archive, place=place, action="mmdebstrap")


def _last_words(said: str, package: str) -> str:
    """Return what a package said before dpkg says that it failed."""
    before = said.partition(f"dpkg: error processing package {package} ")[0]
    words = before.rpartition(f"\nSetting up {package} ")[2].splitlines()[1:]
    return f"its last words: {'; '.join(words[-3:])}" if words else ""


def _read_keyring(keyring: HostPath) -> bytes:
    try:
        with open(keyring, "rb") as file:
            return file.read()
    except OSError as error:
        raise SourceError(
            f"Cannot read the keyring {keyring}: {error.strerror}",
            "name another by --keyring; Debian's is of the package debian-archive-keyring",
        ) from error


def _copy_keyring(keyring: HostPath, place: HostPath) -> str:
    """Put keys where the container sees them; return what they are called there."""
    content = _read_keyring(keyring)
    # apt goes by the name's ending (apt-secure(8)).
    name = "keyring.asc" if content.startswith(b"-----BEGIN") else "keyring.gpg"
    with open(f"{place}/{name}", "wb") as file:
        file.write(content)
    os.chmod(f"{place}/{name}", 0o644)
    return f"{_INSIDE}/{name}"


def _command(suite: Suite, sources: tuple[str, ...]) -> tuple[str, ...]:
    settings, final = (shlex.quote(f"{_INSIDE}/{name}") for name in (_SETTINGS, _SOURCES))
    return (
        *_AT_ONCE,
        *("mmdebstrap", "--verbose", "--mode=root", "--format=directory"),
        *("--skip=check/qemu", "--skip=chroot/mount/sys", "--skip=check/signed-by"),
        "--variant",
        suite.variant,
        f"--architectures={suite.architecture}",
        f"--setup-hook=cp {settings} {_SETTINGS_IN_TREE}",
        f"--customize-hook=rm -f {_SETTINGS_IN_TREE}",
        f'--customize-hook=cp {final} "$1/etc/apt/sources.list"',
        *_including(suite.include),
        *(suite.suite, _TREE, *sources),
    )


def _including(packages: tuple[str, ...]) -> tuple[str, ...]:
    if not packages:
        return ()
    fetch = f"{_FETCH_INCLUDED}{shlex.join(packages)}"
    return (f"--include={','.join(packages)}", f"--extract-hook={fetch}")


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


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _run(request: Request, suite: Suite, stages: BootstrapStages) -> tuple[int, bytes]:
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
    if status > EXIT_SIGNAL_BASE:
        number = status - EXIT_SIGNAL_BASE
        name = signal.Signals(number).name
        if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)  # it was ours: the container got it from here
        raise SourceError(f"Making {suite.name} was ended by {name}", "start it again")
    return status, tap.tail()
