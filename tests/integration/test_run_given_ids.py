"""Ids as the user gives them; sudo of the tree; a container in a container."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from tests.capability import require
from tests.installation import CHECKOUT
from tests.native_guest import PYTHON, NativeGuest, fill_native_tree
from tests.runs import Runner, notes
from tests.users import User
from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath
from xbuild.source.debian import (
    BASE_PACKAGES,
    default_suites,
    fetch_debian_archive,
    unpack_tree,
)

Fresh = Callable[..., HostPath]


def test_root_gives_a_map(root: Runner, fresh_tree: Fresh) -> None:
    """Files keep the numbers on disk; processes have those that were given."""
    tree = fresh_tree("arm64")
    script = "touch /root/new; chown 5:6 /root/new; stat -c %u:%g /root /root/new"
    script += "; cat /proc/self/uid_map"
    words = (
        "--uid-map",
        "0:300000:1000",
        "--uid-map",
        "1000:400000:10",
        "--gid-map",
        "0:300000:999",
    )
    lines = root.output(*words, tree, "sh", "-ec", script).splitlines()
    assert lines[:2] == ["0:0", "5:6"]
    assert [line.split() for line in lines[2:]] == [
        ["0", "300000", "1000"],
        ["1000", "400000", "10"],
    ]
    status = os.stat(f"{tree}/root/new")
    assert (status.st_uid, status.st_gid) == (5, 6)


def test_user_gives_a_map_that_is_granted(ranged: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", ranged.user)
    with open("/etc/subuid", encoding="utf-8") as file:
        fields = next(line.split(":") for line in file if line.startswith(f"{ranged.user.name}:"))
    words = ("--uid-map", f"0:{ranged.user.uid}:1", "--uid-map", f"1:{fields[1]}:10")
    groups = ("--gid-map", f"0:{ranged.user.gid}:1", "--gid-map", f"1:{fields[1]}:10")
    script = "touch /root/new; chown 10 /root/new; chown 11 /root/new 2>/dev/null || echo refused"
    assert ranged.output(*words, *groups, tree, "sh", "-ec", script) == "refused\n"
    assert os.stat(f"{tree}/root/new").st_uid == int(fields[1]) + 9
    done = ranged.run("--uid-map", "0:0:1", tree, "true")
    assert done.returncode == 125
    assert "newuidmap refused" in done.stderr


@pytest.mark.parametrize(
    "text", ["0:1", "a:1:1", "0:1:0", "0:4294967295:1", "5:100000:10", "0:0:9"]
)
def test_maps_that_cannot_be(root: Runner, text: str) -> None:
    assert root.run("--uid-map", text, root.tree("arm64"), "true").returncode == 2


def test_nobody_inside_is_the_hosts_root(root: Runner) -> None:
    words = ("--uid-map", "0:300000:1", "--uid-map", "5:0:1")
    done = root.run(*words, root.tree("arm64"), "true")
    assert done.returncode == 2
    assert "the host's root" in done.stderr


@pytest.fixture
def sudo_tree(new_tree: Callable[[User], HostPath], root: Runner) -> HostPath:
    """Debian with sudo, a user who may use it, and one who asks."""
    try:
        archive = fetch_debian_archive(
            "arm64", default_suites("arm64"), (*BASE_PACKAGES, "sudo", "libpam-modules"),
            progress=lambda _text, _fraction: None,
        )  # fmt: skip
    except MirrorUnavailable as error:
        require("mirror", False, error.message)
    tree = HostPath(f"{new_tree(root.user)}/sudo")
    unpack_tree(archive, tree)
    with open(f"{tree}/etc/passwd", "a", encoding="ascii") as file:
        file.write("pi:x:1000:1000::/:/bin/sh\n")
    with open(f"{tree}/etc/sudoers", "w", encoding="ascii") as file:
        file.write("pi ALL=(ALL) NOPASSWD: ALL\n")
    os.chmod(f"{tree}/etc/sudoers", 0o440)
    for service in ("sudo", "sudo-i", "other"):
        with open(f"{tree}/etc/pam.d/{service}", "w", encoding="ascii") as file:
            file.write(
                "".join(
                    f"{kind} sufficient pam_permit.so\n"
                    for kind in ("auth", "account", "session", "password")
                )
            )
    os.chmod(f"{tree}/usr/bin/sudo", 0o4755)
    return tree


def test_sudo_of_the_tree(root: Runner, sudo_tree: HostPath) -> None:
    """It works where it was asked for, and else is told why not, by xbuild and by sudo itself."""
    words = ("--user", "pi", sudo_tree, "sudo", "id", "-u")
    done = root.run("--setuid", *words)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    done = root.run(*words)
    assert done.returncode == 1
    assert any("add --setuid" in note for note in notes(done))
    assert "no new privileges" in done.stderr or "setuid root" in done.stderr, done.stderr


@pytest.fixture
def outer(runner: Runner, new_tree: Callable[[User], HostPath]) -> NativeGuest:
    """A container of the host's own programs, in which xbuild can be started again."""
    tree = new_tree(runner.user)
    fill_native_tree(tree, runner.user)
    return NativeGuest(runner.user, runner.xbuild, tree)


def test_container_in_a_container(runner: Runner, outer: NativeGuest) -> None:
    """With all that is given up by default, the filter included."""
    inner = runner.tree("arm64")
    own = f"{os.path.dirname(outer.tree)}/own"
    for name in ("xbuild", "profiles", "binfmt"):
        shutil.copytree(f"{CHECKOUT}/{name}", f"{own}/{name}")
    binds = ("--bind-ro", f"{own}:/run/own", "--bind", f"{inner}:/run/tree")
    again = "import sys; sys.path.insert(0, '/run/own'); from xbuild.cli.main import main; main()"
    words = ("run", "/run/tree", "--", "sh", "-c", "uname -m; grep NoNewPrivs /proc/self/status")
    done = outer.run(PYTHON, "-ISE", "-c", again, *words, options=binds)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["aarch64", "NoNewPrivs:", "1"], done.stderr
