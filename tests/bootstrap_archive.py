"""What a tree is bootstrapped from, on a loopback site: Debian's packages, laid out as Ubuntu's.

No archive of Ubuntu was at hand. Its layout, suites, components and keys are as there; the packages
that every tree has are Debian's, and those that a test asks for besides are made here.
"""

from __future__ import annotations

import os
import subprocess
import tempfile

from tests.apt_archive import publish
from tests.capability import require
from tests.light_packages import lighten
from tests.loopback import Site
from tests.openpgp import Signer
from tests.patience import WORK_S
from tests.runs import Runner, write_program
from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath, Record
from xbuild.source.apt import Apt, download
from xbuild.source.cache import cache_directory, locked
from xbuild.source.mirror import find_mirrors

CODENAME = "noble"
COMPONENTS = ("main", "restricted", "universe", "multiverse")
_CONTROL = """\
Package: {name}
Version: {version}
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: made for a test
{more}"""


def essential_packages(architecture: str) -> tuple[str, ...]:
    """Return the .debs of Debian's that every tree has, from where other tests keep theirs.

    Less usr-is-merged, for which see ``publish_ubuntu``.
    """
    directory = HostPath(f"{cache_directory()}/debian")
    silent = lambda _text, _fraction: None  # noqa: E731
    with locked(directory, silent), tempfile.TemporaryDirectory() as work:
        alternatives = tuple(
            Apt(
                HostPath(f"{work}/{number}"),
                HostPath(f"{directory}/pool"),
                architecture,
                "bookworm",
                mirror,
            )
            for number, mirror in enumerate(find_mirrors())
        )
        try:
            debs = download(alternatives, ("?essential", "usr-is-merged"), silent)
        except MirrorUnavailable as error:
            require("mirror", False, error.message)
            raise
        needed = (deb for deb in debs if not os.path.basename(deb).startswith("usr-is-merged_"))
        return lighten(tuple(needed), HostPath(f"{directory}/light"))


def make_package(
    place: str, name: str, version: str, *, postinst: str = "", more: str = "", size: int = 0
) -> str:
    """Return a new .deb below ``place``, which installs /srv/NAME with its version.

    That is followed by ``size`` zeros; ``more`` are lines of its control file.
    """
    root, deb = f"{place}/{name}-{version}", f"{place}/{name}_{version}_all.deb"
    control = _CONTROL.format(name=name, version=version, more=more)
    write_program(f"{root}/DEBIAN/control", control, 0o644)
    write_program(f"{root}/srv/{name}", f"{version}\n".encode() + bytes(size), 0o644)
    if postinst:
        write_program(f"{root}/DEBIAN/postinst", f"#!/bin/sh\n{postinst}\n")
    build = ["dpkg-deb", "--root-owner-group", "-b", root, deb]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return deb


def publish_ubuntu(
    site: Site,
    keys: Signer,
    debs: tuple[str, ...],
    architecture: str,
    *,
    key: str = "good",
    universe: tuple[str, ...] = (),
    updates: tuple[str, ...] = (),
    security: tuple[str, ...] = (),
) -> str:
    """Put a release with its updates on a site; return the place of its archive there.

    The packages ``updates`` and ``security`` are in universe, too. What merges /usr in a release
    of Debian is one of Ubuntu's own that does nothing: its trees are merged from the beginning.
    """
    place = "/ubuntu" if architecture in ("amd64", "i386") else "/ubuntu-ports"
    with tempfile.TemporaryDirectory() as work:
        merged = make_package(work, "usr-is-merged", "37")
        for suite, chosen, more in (
            (CODENAME, (*debs, merged), universe),
            (f"{CODENAME}-updates", (), updates),
            (f"{CODENAME}-security", (), security),
        ):
            publish(
                site,
                place,
                suite,
                chosen,
                keys,
                key=key,
                codename=CODENAME,
                universe=more,
                components=COMPONENTS,
                architecture=architecture,
            )
    return place


def readable_keyring(keys: Signer, name: str, place: str) -> HostPath:
    """Put the public part of a key below ``place``, where every user can read it."""
    path = HostPath(f"{place}/{name}.asc")
    with open(keys.keyring(name), "rb") as source, open(path, "wb") as target:
        target.write(source.read())
    os.chmod(path, 0o644)
    return path


class Maker(Record):
    """Somebody who makes a tree of Ubuntu at ``place``/own/tree; ``keyring`` has the right key."""

    runner: Runner
    place: HostPath
    keyring: HostPath

    @property
    def own(self) -> HostPath:
        """Return the directory that has the new tree and nothing else."""
        return HostPath(f"{self.place}/own")

    @property
    def tree(self) -> HostPath:
        """Return where the tree is to be."""
        return HostPath(f"{self.own}/tree")

    def argv(self, *options: str) -> list[str]:
        """Return the command line, with further options."""
        words = ["create", self.tree, "--from", f"ubuntu:{CODENAME}"]
        return [*self.runner.xbuild, *words, *options]

    def create(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Make it, with such an environment besides."""
        settings = self.runner.user.environment(**environment)
        return self.runner.user.run(self.argv(*options), env=settings, timeout_s=WORK_S)

    def sources(self) -> list[str]:
        """Return the lines of the new tree's sources."""
        with open(f"{self.tree}/etc/apt/sources.list", encoding="utf-8") as file:
            return file.read().splitlines()
