"""A tree without a package database and a root with cross compilers for it, laid out as Gentoo's.

The programs are Debian's, moved to where binutils-config and crossdev have them: real compilers of
one source for two machines, in another distribution's places. The tree's own drivers stay in
/usr/bin, from where alone they find what they start.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from tests.capability import require
from xbuild.errors import MirrorUnavailable
from xbuild.native.fetch import fetch_packages
from xbuild.record import HostPath
from xbuild.source.apt import Apt, available_versions
from xbuild.source.cache import cache_directory
from xbuild.source.debian import BASE_PACKAGES, fetch_debian_archive, unpack_tree
from xbuild.source.mirror import find_mirrors

SUITE, VERSION, BINUTILS = "trixie", "14", "2.44"
CHOST = "aarch64-linux-gnu"
_CBUILD = "x86_64-pc-linux-gnu"
_TREE_PACKAGES = (*BASE_PACKAGES, "gcc", "libc6-dev")
_OS_RELEASE = "NAME=Gentoo\nID=gentoo\nPRETTY_NAME='Gentoo Linux'\n"
_TOOLS = ("as", "ar", "nm", "ranlib", "strip", "objcopy", "objdump", "readelf", "ld.bfd")
_DRIVERS = ("gcc", "cpp", "gcc-ar", "gcc-nm", "gcc-ranlib")


def make_tree(place: HostPath) -> HostPath:
    """Make an arm64 tree with GCC at the new directory ``place``."""
    try:
        archive = fetch_debian_archive("arm64", (SUITE,), _TREE_PACKAGES, progress=_silent)
    except MirrorUnavailable as error:
        require("mirror", False, error.message)
        raise
    tree = unpack_tree(archive, place)
    shutil.rmtree(f"{tree}/var/lib/dpkg")
    os.unlink(f"{tree}/usr/lib/os-release")
    with open(f"{tree}/usr/lib/os-release", "w", encoding="utf-8") as file:
        file.write(_OS_RELEASE)
    above = f"usr/{CHOST}"
    _move_programs(tree, "usr/bin", f"{above}/binutils-bin/{BINUTILS}")
    for name in (*_TOOLS, "ld", *_DRIVERS):
        link = f"{tree}/usr/bin/{name}"
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(f"{CHOST}-{name}", link)
    return tree


def provider() -> HostPath:
    """Return a root directory of this host with the cross toolchain; made once, kept in the cache.

    Its path is part of what a set is known by, so that the set is found again by later sessions.
    """
    place = HostPath(f"{cache_directory()}/test-crossdev-{SUITE}")
    if os.path.isdir(place):
        return place
    work = HostPath(f"{place}.new")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(f"{work}/root")
    names = (f"gcc-{VERSION}-{CHOST}", f"cpp-{VERSION}-{CHOST}", f"binutils-{CHOST}")
    try:
        _fetch(names, work)
    except MirrorUnavailable as error:
        require("mirror", False, error.message)
    for top in ("lib", "libexec"):
        if os.path.isdir(f"{work}/root/usr/{top}/gcc-cross"):
            os.rename(f"{work}/root/usr/{top}/gcc-cross", f"{work}/root/usr/{top}/gcc")
    above = f"usr/{_CBUILD}/{CHOST}"
    root = HostPath(f"{work}/root")
    _move_programs(root, f"{above}/gcc-bin/{VERSION}", f"{above}/binutils-bin/{BINUTILS}")
    os.rename(root, place)
    shutil.rmtree(work)
    return place


def copy_of(root: HostPath, place: HostPath) -> HostPath:
    """Make a copy of a provider to be changed, its files shared until they are."""
    subprocess.run(["cp", "-a", "--reflink=auto", root, place], check=True)
    return place


def _fetch(names: tuple[str, ...], work: HostPath) -> None:
    pool = HostPath(f"{work}/pool")
    alternatives = tuple(
        Apt(HostPath(f"{work}/apt-{number}"), pool, "amd64", SUITE, mirror)
        for number, mirror in enumerate(find_mirrors())
    )
    for apt in alternatives:
        os.mkdir(apt.directory)
    offered = available_versions(alternatives, names, _silent)
    versioned = tuple((name, offered[name][0]) for name in names)
    fetch_packages(alternatives, versioned, HostPath(f"{work}/root"), _silent)


def _move_programs(root: HostPath, drivers: str, tools: str) -> None:
    """Move programs from /usr/bin, with links from there; what is a link there becomes one here."""
    for directory, names in ((drivers, _DRIVERS), (tools, (*_TOOLS, "ld"))):
        os.makedirs(f"{root}/{directory}", exist_ok=True)
        for name in names:
            old = f"{root}/usr/bin/{CHOST}-{name}"
            versioned = f"{old}-{VERSION}"
            source = versioned if os.path.isfile(versioned) else old
            new = f"{root}/{directory}/{CHOST}-{name}"
            if name == "ld":
                os.symlink(f"{CHOST}-ld.bfd", new)
            else:
                os.rename(source, new)
            if new != old:
                if os.path.lexists(old):
                    os.unlink(old)
                os.symlink(os.path.relpath(new, os.path.dirname(old)), old)


def _silent(_text: str, _fraction: float | None) -> None:
    """Keep the progress out of the tests' output."""
