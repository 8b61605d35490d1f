"""Package managers at work inside foreign trees: install, upgrade and remove, users and scripts.

As real root and as an ordinary user with subordinate ids; on disk, not discarded. Packages and
repositories are the tests' own (tests/packages.py). Debian has neither apk nor opkg to test with.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.packages import (
    take_for_configured,
    write_apt_repository,
    write_pacman_sources,
    write_rpm_sources,
)
from tests.patience import WORK_S
from tests.runs import Kind, Runner
from tests.trees import tree_hash
from tests.users import User
from xbuild.record import HostPath

Fresh = Callable[..., HostPath]
RunnerOf = Callable[[Kind], Runner]
NewPlace = Callable[[User], HostPath]
Managed = Callable[..., tuple[list[str], HostPath]]

APT = ("apt", "dpkg", "init-system-helpers", "systemd-sysv", "passwd", "adduser")
RPM = ("dnf", "zypper", "rpm", "createrepo-c", "python3", "ca-certificates", "passwd")
PACMAN = ("pacman-package-manager", "makepkg", "libarchive-tools", "passwd")
KINDS: tuple[Kind, ...] = ("root", "range")

APT_SCRIPT = """
echo 'deb [trusted=yes] file:/mnt ./' >/etc/apt/sources.list.d/own.list
apt-get -q update
apt-get -q -y install svc=1.0
stat -c 'owned by %U, mode %a' /srv/svc/version
apt-get -q -y upgrade
echo "version $(cat /srv/svc/version)"
apt-get -q -y purge svc
[ ! -e /srv/svc/version ] && echo gone
[ ! -e /srv/svc.started ] && echo 'no service was started'
echo "scripts: $(cat /srv/svc.log)"
"""
DNF_SCRIPT = """
mkdir -p /etc/yum.repos.d
printf '[own]\\nname=own\\nbaseurl=file:///mnt/repo\\ngpgcheck=0\\n' >/etc/yum.repos.d/own.repo
dnf -y --releasever=1 install svc-1.0
stat -c 'owned by %U, mode %a' /srv/svc/version
dnf -y --releasever=1 upgrade svc
echo "version $(cat /srv/svc/version)"
dnf -y --releasever=1 remove svc
[ ! -e /srv/svc/version ] && echo gone
echo "scripts: $(cat /srv/svc.log)"
"""
ZYPPER_SCRIPT = """
alias zypper='zypper --non-interactive'
zypper addrepo --no-gpgcheck /mnt/repo own
zypper install svc=1.0
stat -c 'owned by %U, mode %a' /srv/svc/version
zypper update svc
echo "version $(cat /srv/svc/version)"
zypper remove svc
[ ! -e /srv/svc/version ] && echo gone
echo "scripts: $(cat /srv/svc.log)"
"""
PACMAN_SCRIPT = """
mkdir -p /var/lib/pacman
printf '[options]\\nSigLevel = Never\\n[own]\\nServer = file:///mnt/repo\\n' >/etc/pacman.conf
repo-add /mnt/repo/own.db.tar.gz /mnt/repo/svc-1.0-1-any.pkg.tar
pacman --noconfirm -Sy svc
stat -c 'owned by %U, mode %a' /srv/svc/version
repo-add /mnt/repo/own.db.tar.gz /mnt/repo/svc-2.0-1-any.pkg.tar
pacman --noconfirm -Syu
echo "version $(cat /srv/svc/version)"
pacman --noconfirm -R svc
[ ! -e /srv/svc/version ] && echo gone
echo "scripts: $(cat /srv/svc.log)"
"""


@pytest.fixture
def managed(runner_of: RunnerOf, fresh_tree: Fresh, new_place: NewPlace) -> Managed:
    """``managed(kind, architecture, packages, write, script)``: what it printed, and the tree.

    ``write`` fills a directory of the user's, seen at /mnt, and returns what to begin with.
    A tree that ``is_configured`` is one where Debian's packages count as that.
    """

    def manage(
        kind: Kind,
        architecture: str,
        packages: tuple[str, ...],
        write: Callable[[HostPath], str],
        script: str,
        *,
        is_configured: bool = True,
    ) -> tuple[list[str], HostPath]:
        runner = runner_of(kind)
        place = new_place(runner.user)
        begin = write(place)
        tree = fresh_tree(architecture, runner.user, packages)
        if is_configured:
            take_for_configured(tree)
        return _lines(runner, tree, place, begin + script), tree

    return manage


def _lines(runner: Runner, tree: HostPath, shown: HostPath, script: str) -> list[str]:
    """Return what a script printed that works in the tree, each of its commands successfully."""
    words = ("--bind", f"{shown}:/mnt", "--setenv", "DEBIAN_FRONTEND=noninteractive")
    environment = ("--setenv", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    said = runner.output(
        *words, *environment, tree, "sh", "-ec", script, timeout_s=WORK_S
    ).splitlines()
    assert said.index("owned by svc, mode 640") < said.index("version 2.0") < said.index("gone")
    return said[said.index("gone") + 1 :]


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("arm64", "root"), ("armhf", "range"), ("ppc64el", "range"), ("s390x", "range")],
)
def test_apt(managed: Managed, architecture: str, kind: Kind) -> None:
    """Debian's own rule starts no service where the runlevel is unknown (invoke-rc.d(8)).

    For one architecture, and a user, apt first configures the packages that the tree is made of.
    """
    what = (kind, architecture, APT, write_apt_repository, APT_SCRIPT)
    lines, tree = managed(*what, is_configured=architecture != "s390x")
    assert lines == [
        "no service was started",
        "scripts: postinst configure ",
        "prerm upgrade 2.0",
        "postinst configure 1.0",
        "prerm remove ",
    ]
    assert not os.path.lexists(f"{tree}/usr/sbin/policy-rc.d")


@pytest.mark.parametrize(
    ("kind", "manager", "script"), [("root", "dnf", DNF_SCRIPT), ("range", "zypper", ZYPPER_SCRIPT)]
)
def test_rpm(managed: Managed, kind: Kind, manager: str, script: str) -> None:
    """Built by rpmbuild and indexed by createrepo_c in the tree."""
    lines, _ = managed(kind, "arm64", RPM, write_rpm_sources, script)
    assert lines == ["scripts: post 1", "post 2", "preun 1", "preun 0"], manager


@pytest.mark.parametrize("kind", KINDS)
def test_pacman(managed: Managed, kind: Kind) -> None:
    lines, _ = managed(kind, "arm64", PACMAN, write_pacman_sources, PACMAN_SCRIPT)
    assert lines == ["scripts: install 1.0-1", "upgrade 2.0-1 1.0-1", "remove 2.0-1"]


@pytest.mark.parametrize("option", ["--ephemeral", "--no-sync"])
def test_apt_in_passing(root: Runner, fresh_tree: Fresh, new_place: NewPlace, option: str) -> None:
    place = new_place(root.user)
    write_apt_repository(place)
    tree = fresh_tree("arm64", root.user, APT)
    before = tree_hash(tree)
    words = (option, "--bind", f"{place}:/mnt")
    script = "dpkg -i /mnt/svc_1.0_all.deb; id -un svc"
    assert root.output(*words, tree, "sh", "-ec", script).splitlines()[-1] == "svc"
    assert (tree_hash(tree) == before) == (option == "--ephemeral")
