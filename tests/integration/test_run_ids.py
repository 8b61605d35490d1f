"""Whose ids a container has: chown, dpkg, other people's trees, notes on what will not work."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable

import pytest

from tests.runs import Runner, notes
from tests.trees import FOREIGN_ARCHITECTURES, tree_hash
from xbuild.record import HostPath

Fresh = Callable[..., HostPath]

CONTROL = """\
Package: tiny
Version: 1.0
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: a file of daemon's
"""


def tar_of(**members: tuple[bytes, int, int]) -> bytes:
    """Return a tar archive of files: content, owner and mode by name, ``__`` for a slash."""
    with io.BytesIO() as output:
        with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for name, (content, owner, mode) in members.items():
                entry = tarfile.TarInfo("./" + name.replace("__", "/"))
                entry.size, entry.mode = len(content), mode
                entry.uid = entry.gid = owner
                archive.addfile(entry, io.BytesIO(content))
        return output.getvalue()


def debian_package(path: str) -> None:
    """Write a package with a file of uid 1, a setuid one and a maintainer script: deb(5)."""
    postinst = b"#!/bin/sh -e\nchown games:games /usr/tiny\necho postinst ran\n"
    control = tar_of(control=(CONTROL.encode(), 0, 0o644), postinst=(postinst, 0, 0o755))
    data = tar_of(usr__tiny=(b"tiny\n", 1, 0o644), usr__tiny2=(b"tiny\n", 1, 0o4755))
    parts = {"debian-binary": b"2.0\n", "control.tar": control, "data.tar": data}
    with open(path, "wb") as file:
        file.write(b"!<arch>\n")
        for name, content in parts.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))


@pytest.mark.parametrize("kind", ["root", "ranged"])
@pytest.mark.parametrize("option", ["--ephemeral", "--user=root"])
def test_dpkg_installs(
    request: pytest.FixtureRequest, kind: str, option: str, fresh_tree: Fresh
) -> None:
    runner: Runner = request.getfixturevalue(kind)
    tree = fresh_tree("arm64", runner.user)
    debian_package(f"{tree}/tiny.deb")
    script = "dpkg --force-depends -i /tiny.deb 2>&1; stat -c '%U %a' /usr/tiny /usr/tiny2"
    lines = runner.output(option, tree, "sh", "-ec", script).splitlines()
    assert "postinst ran" in lines
    assert lines[-2:] == ["games 644", "daemon 4755"]


def test_dpkg_runs_with_one_id(single: Runner) -> None:
    assert "Debian" in single.output(single.tree("arm64"), "dpkg", "--version")
    done = single.run(single.tree("arm64"), "true")
    assert any("one user id only" in note and "dpkg" in note for note in notes(done))


def test_chown_with_one_id_fails_as_said(single: Runner) -> None:
    done = single.run("-x", single.tree("arm64"), "chown", "daemon", "/etc/issue")
    assert (done.returncode, "Invalid argument" in done.stderr) == (1, True)
    assert any("chown fails inside (EINVAL)" in note for note in notes(done))


@pytest.mark.parametrize("architecture", FOREIGN_ARCHITECTURES)
def test_chown_and_chmod(root: Runner, ranged: Runner, architecture: str) -> None:
    script = """
        touch /etc/new; chown daemon:tty /etc/new; chmod 2640 /etc/new; stat -c '%U %G %a' /etc/new
        chown 65533:65533 /etc/new; stat -c %u:%g /etc/new
        """
    for runner in (root, ranged):
        shown = runner.shell(architecture, script, "-x").splitlines()
        assert shown == ["daemon tty 2640", "65533:65533"]


def test_ids_on_disk_are_the_tree_s_own(root: Runner, fresh_tree: Fresh) -> None:
    """As root, what the container's user N writes belongs to N on disk: idmapped, not shifted."""
    tree = fresh_tree("arm64", root.user)
    root.output("--user", "games", "--chdir", "/tmp", tree, "true")
    root.output(
        tree, "sh", "-ec", "install -d -o games -g tty /etc/g; install -m 600 /etc/issue /etc/i"
    )
    status = os.stat(f"{tree}/etc/g")
    assert (status.st_uid, status.st_gid) == (5, 5)
    assert os.stat(f"{tree}/etc/i").st_uid == 0


def test_root_s_own_ids_on_request(root: Runner) -> None:
    """--private-users identity: root inside has the host's number, as the kernel shows it."""
    tree = root.tree("arm64")
    assert root.shell("arm64", "cat /proc/self/uid_map", "--private-users=identity").split() == [
        "0",
        "0",
        "4294967295",
    ]
    shifted = root.output(tree, "cat", "/proc/self/uid_map").split()
    assert (shifted[0], int(shifted[1]) > 65535, shifted[2]) == ("0", True, "65536")


@pytest.mark.parametrize("kind", ["ranged", "single"])
@pytest.mark.parametrize("option", ["--user=root", "--ephemeral", "--read-only"])
def test_tree_of_root_used_by_others(
    request: pytest.FixtureRequest, kind: str, option: str, root: Runner
) -> None:
    """It runs, in / as root's home is closed; writes fail, and a note says so."""
    runner: Runner = request.getfixturevalue(kind)
    tree = root.tree("arm64")
    before = tree_hash(tree)
    script = "pwd; touch /etc/issue 2>/dev/null || echo refused; touch /tmp/mine; uname -m"
    done = runner.run(option, tree, "sh", "-ec", script)
    assert done.stdout.split() == ["/", "refused", "aarch64"], done.stderr
    assert any("the tree belongs to root, not to you" in note for note in notes(done))
    assert tree_hash(tree) == before


def test_tree_of_another_user(ranged: Runner, single: Runner) -> None:
    tree = single.tree("arm64")
    os.chmod(os.path.dirname(tree), 0o755)
    done = ranged.run(tree, "sh", "-c", "uname -m; touch /etc/x")
    assert (done.stdout, done.returncode) == ("aarch64\n", 1)
    assert any(f"belongs to uid {single.user.uid}, not to you" in note for note in notes(done))


def test_root_runs_a_user_s_tree(root: Runner, single: Runner, fresh_tree: Fresh) -> None:
    """Without chown: owners inside are those on disk."""
    tree = fresh_tree("arm64", single.user)
    shown = root.output(tree, "sh", "-ec", "stat -c %u:%g /etc/issue; touch /etc/new; id -u")
    assert shown.split() == [f"{single.user.uid}:{single.user.gid}", "0"]
    assert os.stat(f"{tree}/etc/new").st_uid == 0


def test_tree_unpacked_with_subordinate_ids(
    ranged: Runner, fresh_tree: Fresh, require: Callable[[str, bool, str], None]
) -> None:
    """What a user's own container wrote is recognised: its root is the first subordinate id."""
    require("root", os.geteuid() == 0, "giving a tree to a subordinate id is for root")
    tree = fresh_tree("arm64", ranged.user)
    with open("/etc/subuid") as file:
        fields = (line.split(":") for line in file.read().split())
        first = next(int(start) for name, start, _ in fields if name == ranged.user.name)
    for directory, names, files in os.walk(tree):
        for name in (".", *names, *files):
            os.lchown(os.path.join(directory, name), first, first)
    words = (tree, "sh", "-ec", "stat -c %u:%g /etc/issue; touch /etc/new; chown 7 /etc/new")
    done = ranged.run(*words)
    assert (done.returncode, "chmod o+x" in done.stderr) == (125, True), done.stderr
    os.chmod(os.path.dirname(tree), 0o711)
    done = ranged.run(*words)
    assert (done.stdout, done.returncode) == ("0:0\n", 0), done.stderr
    assert os.stat(f"{tree}/etc/new").st_uid == first + 7
    assert any("subordinate id of yours" in note for note in notes(done))
