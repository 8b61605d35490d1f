"""Trees laid out as Gentoo's: real foreign programs, real Portage, a repository of the tests' own.

Portage is the one that is installed beside pytest: pure Python, which the tree's own Python runs.
It is without the checks that it makes of what an ebuild installs: there is not much to check.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil

from tests.runs import write_program
from xbuild.record import HostPath

PACKAGES = ("python3", "bzip2", "xz-utils", "zstd", "mount", "util-linux")
"""What Portage needs of a tree."""

CHOST = "armv7a-unknown-linux-gnueabihf"
REPOSITORY = "var/db/repos/gentoo"
PROFILE = "default/linux/arm/23.0/armv7a"
CHOSTS = {PROFILE: CHOST, "default/linux/arm64/23.0": "aarch64-unknown-linux-gnu"}
"""By profile."""

MAKE_CONF = f"""\
COMMON_FLAGS="-O2 -pipe -march=armv7-a -mfpu=vfpv3-d16"
CFLAGS="${{COMMON_FLAGS}}"
CXXFLAGS="${{COMMON_FLAGS}}"
CHOST="{CHOST}"
MAKEOPTS="-j99"
"""
_MAKE_DEFAULTS = """\
ARCH="{0}"
ACCEPT_KEYWORDS="{0}"
USERLAND="GNU"
KERNEL="linux"
ELIBC="glibc"
"""
_EBUILD = """\
EAPI=8
DESCRIPTION="says hello"
HOMEPAGE="https://example.org"
LICENSE="MIT"
SLOT="0"
KEYWORDS="arm arm64"
S="${WORKDIR}"
src_unpack() { :; }
src_compile() {
    printf '#!/bin/sh\\necho "%s"\\n' "made with ${MAKEOPTS} by $(id -un) in ${WORKDIR}" >hello
}
src_install() { dobin hello; }
"""
_RUN = '#!/bin/sh\nexport PORTAGE_OVERRIDE_EPREFIX=\nexec python3 /usr/lib/portage/bin/{} "$@"\n'


def lay_out(tree: HostPath, make_conf: str = MAKE_CONF, profile: str = PROFILE) -> None:
    """Make a tree one of Gentoo's by its files, without Portage itself."""
    write_program(f"{tree}/etc/gentoo-release", "Gentoo Base System release 2.15\n", 0o644)
    write_program(f"{tree}/etc/portage/make.conf", make_conf, 0o644)
    os.symlink(f"../../{REPOSITORY}/profiles/{profile}", f"{tree}/etc/portage/make.profile")


def install_portage(tree: HostPath, profile: str = PROFILE) -> None:
    """Give a tree with Python Portage, its user, and a repository with app-misc/hello."""
    for file in importlib.metadata.files("portage") or ():
        _install(str(file), HostPath(os.path.abspath(str(file.locate()))), tree)
    os.symlink("usr/share", f"{tree}/share")  # where Portage that pip installs looks
    for name in ("emerge", "ebuild", "portageq"):
        write_program(f"{tree}/usr/bin/{name}", _RUN.format(name))
    for path, line in (
        ("etc/passwd", "portage:x:250:250:portage:/var/tmp:/bin/false\n"),
        ("etc/group", "portage:x:250:\n"),
    ):
        with open(f"{tree}/{path}", "a", encoding="utf-8") as file_:
            file_.write(line)
    _write_repository(f"{tree}/{REPOSITORY}", profile)


def _install(name: str, source: HostPath, tree: HostPath) -> None:
    _, is_data, below = name.partition("../../../")
    if is_data and not below.startswith(("lib/portage/", "share/portage/")):
        return
    place = f"{tree}/usr/{below}" if is_data else f"{tree}/usr/lib/python3/dist-packages/{name}"
    if "__pycache__" in place or "/install-qa-check.d/" in place:
        return
    os.makedirs(os.path.dirname(place), exist_ok=True)
    shutil.copyfile(source, place)
    os.chmod(place, 0o755 if "/portage/bin/" in place else 0o644)


def _write_repository(place: str, name: str) -> None:
    profile, keyword = f"profiles/{name}", name.split("/")[2]
    defaults = _MAKE_DEFAULTS.format(keyword)
    files = {
        "profiles/repo_name": "gentoo\n",
        "profiles/categories": "app-misc\nvirtual\n",
        "profiles/eapi": "8\n",
        "profiles/arch.list": f"{keyword}\n",
        "profiles/profiles.desc": f"{keyword} {name} stable\n",
        f"{profile}/make.defaults": f'{defaults}CHOST="{CHOSTS[name]}"\n',
        f"{profile}/eapi": "8\n",
        f"{profile}/packages": "",
        "metadata/layout.conf": "masters =\nthin-manifests = true\nsign-manifests = false\n",
        "app-misc/hello/hello-1.0.ebuild": _EBUILD,
        "app-misc/hello/Manifest": "",
    }
    for path, text in files.items():
        write_program(f"{place}/{path}", text, 0o644)
