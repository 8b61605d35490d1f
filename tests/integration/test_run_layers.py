"""Overlays, covered places, volatile roots, and options of binds and tmpfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.runs import Runner, notes, write_program
from tests.trees import tree_hash
from xbuild.record import HostPath

Fresh = Callable[..., HostPath]
Layers = Callable[[Runner], HostPath]


@pytest.fixture
def layers(new_tree: Callable[..., HostPath]) -> Layers:
    """Directories of the runner's own: lower, middle, upper; two have a file each, one alike."""

    def make(runner: Runner) -> HostPath:
        place = new_tree(runner.user)
        for name, files in (("lower", ("a", "both")), ("middle", ("b", "both")), ("upper", ())):
            os.mkdir(f"{place}/{name}")
            for file in files:
                write_program(f"{place}/{name}/{file}", f"{file} of {name}\n", 0o644)
        subprocess.run(["chown", "-R", f"{runner.user.uid}:{runner.user.gid}", place], check=True)
        return place

    return make


def test_overlay(runner: Runner, layers: Layers) -> None:
    place = layers(runner)
    before = tree_hash(f"{place}/lower"), tree_hash(f"{place}/middle")
    script = """
        cd /mnt; cat a b both; echo new >new; echo changed >a; rm b; stat -c '%u %g' a new
        mkdir directory; touch directory/file; ls
        """
    overlay = f"{place}/lower:{place}/middle:{place}/upper:/mnt"
    shown = runner.shell("arm64", script, "--overlay", overlay).split("\n")
    assert shown[:3] == ["a of lower", "b of middle", "both of middle"]
    assert shown[3:-1] == ["0 0", "0 0", "a", "both", "directory", "new"]
    assert (tree_hash(f"{place}/lower"), tree_hash(f"{place}/middle")) == before
    assert sorted(os.listdir(f"{place}/upper")) == ["a", "b", "directory", "new"]
    for name in ("a", "new", "directory/file"):
        status = os.stat(f"{place}/upper/{name}")
        assert (status.st_uid, status.st_gid) == (runner.user.uid, runner.user.gid)
    # A second run goes on from there.
    assert runner.shell("arm64", "cat /mnt/a; ls /mnt", "--overlay", overlay).split() == [
        *("changed", "a", "both", "directory", "new")
    ]


def test_read_only_overlay(runner: Runner, layers: Layers) -> None:
    place = layers(runner)
    overlay = ("--overlay-ro", f"{place}/lower:{place}/middle:/mnt/deep")
    assert runner.shell("arm64", "cat /mnt/deep/both", *overlay) == "both of middle\n"
    done = runner.run(*overlay, runner.tree("arm64"), "touch", "/mnt/deep/new")
    assert "Read-only file system" in done.stderr


def test_upper_layer_is_for_one_at_a_time(runner: Runner, layers: Layers) -> None:
    place, tree = layers(runner), runner.tree("arm64")
    overlay = ("--overlay", f"{place}/lower:{place}/upper:/mnt")
    with runner.spawn(
        *overlay, tree, "sh", "-c", "echo ready; read x", stdin=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        done = runner.run(*overlay, tree, "true")
        assert done.returncode == 125
        assert "another container writes to" in done.stderr
        first.communicate("\n")
    assert runner.run(*overlay, tree, "true").returncode == 0


@pytest.mark.parametrize("text", ["/a:/b", "a", ":/a:/b", "/a:/b:c"])
def test_what_is_no_overlay(root: Runner, text: str) -> None:
    done = root.run("--overlay", text, root.tree("arm64"), "true")
    assert done.returncode == 2
    assert done.stderr.startswith("xbuild: ")


def test_missing_layer_is_named(runner: Runner, layers: Layers) -> None:
    place = layers(runner)
    done = runner.run("--overlay", f"{place}/none:{place}/upper:/mnt", runner.tree("arm64"), "true")
    assert done.returncode == 125
    assert f"there is no directory {place}/none" in done.stderr


def test_inaccessible(runner: Runner) -> None:
    script = "stat -c '%a %s' /etc/passwd; test -e /usr/share/doc || echo no"
    words = ("--inaccessible=/etc/passwd", "--inaccessible=/usr/share")
    assert runner.shell("arm64", script, *words).split() == ["0", "0", "no"]


def test_inaccessible_place_must_be_there(root: Runner) -> None:
    done = root.run("--inaccessible", "/nonesuch", root.tree("arm64"), "true")
    assert done.returncode == 125
    assert "has no such path" in done.stderr


def test_place_that_need_not_be_there_is_hidden_where_it_is(runner: Runner) -> None:
    words = ("--inaccessible=-/etc/passwd", "--inaccessible=-/nonesuch/at/all")
    assert runner.shell("arm64", "stat -c '%a %s' /etc/passwd; ls /", *words).split()[:2] == [
        "0",
        "0",
    ]


def test_source_that_need_not_be_there(runner: Runner) -> None:
    words = ("--bind=-/nonesuch:/mnt", "--bind-ro=-/etc/hostname:/tmp/name")
    done = runner.run(*words, runner.tree("arm64"), "cat", "/tmp/name")
    with open("/etc/hostname", encoding="ascii") as file:
        assert (done.returncode, done.stdout) == (0, file.read()), done.stderr


def test_source_is_made(runner: Runner) -> None:
    """By a run, and not by its plan."""
    place = f"{runner.user.home}/made-{os.getpid()}/deep"
    words = ("--bind", f"{place}:/mnt:mkdir", runner.tree("arm64"), "touch", "/mnt/file")
    plan = runner.output("--dry-run", *words)
    assert f"bind       /mnt <- {place}" in plan
    assert "(made if it is not there)" in plan
    assert not os.path.exists(os.path.dirname(place))
    runner.output(*words)
    assert os.stat(f"{place}/file").st_uid == os.stat(place).st_uid == runner.user.uid
    modes = [os.stat(each).st_mode & 0o7777 for each in (place, os.path.dirname(place))]
    assert modes == [0o755, 0o755]
    shutil.rmtree(os.path.dirname(place))


def test_source_that_cannot_be_made_is_named(root: Runner) -> None:
    done = root.run("--bind", "/etc/passwd/x:/mnt:mkdir", root.tree("arm64"), "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert "Not a directory (ENOTDIR) at /etc/passwd/x" in done.stderr


def test_hidden_place_cannot_be_uncovered(root: Runner) -> None:
    script = "umount /etc/passwd 2>&1; mount -o remount,rw /etc/passwd 2>&1; wc -c </etc/passwd"
    shown = root.run("--inaccessible=/etc/passwd", root.tree("arm64"), "sh", "-c", script)
    assert shown.stdout.split()[-1:] != [str(os.stat(f"{root.tree('arm64')}/etc/passwd").st_size)]


def test_volatile_root(runner: Runner) -> None:
    tree = runner.tree("arm64")
    before = tree_hash(tree)
    script = "ls /; touch /new /etc/new; touch /usr/new 2>&1 || true; wc -l </etc/resolv.conf"
    shown = runner.shell("arm64", script, "--volatile", "yes")
    assert "Read-only file system" in shown
    assert {"bin", "etc", "lib", "usr", "proc"} <= set(shown.split()) <= {*shown.split()} - {"home"}
    assert tree_hash(tree) == before


def test_volatile_state(runner: Runner) -> None:
    script = "ls /var | wc -l; touch /var/new; touch /new 2>&1 || true"
    shown = runner.shell("arm64", script, "--volatile=state")
    assert shown.startswith("0\n")
    assert "Read-only file system" in shown


def test_volatile_overlay_discards(runner: Runner) -> None:
    tree = runner.tree("arm64")
    before = tree_hash(tree)
    assert runner.shell("arm64", "touch /root/new; ls /root", "--volatile=overlay") == "new\n"
    assert tree_hash(tree) == before


def test_volatile_root_needs_a_merged_usr(root: Runner, busybox_tree: Fresh) -> None:
    done = root.run("--volatile=yes", busybox_tree("armhf", root.user), "true")
    assert done.returncode == 125
    assert "--volatile overlay" in done.stderr


def test_options_of_binds(runner: Runner, layers: Layers) -> None:
    place = layers(runner)
    script = "grep ' /mnt ' /proc/self/mountinfo | cut -d' ' -f6; /mnt/a 2>&1 || true"
    shown = runner.shell("arm64", script, "--bind", f"{place}/lower:/mnt:noexec,ro,norbind")
    assert {"ro", "noexec", "nosuid", "nodev"} <= set(shown.split()[0].split(","))
    shown = runner.shell("arm64", script, "--bind", f"{place}/lower:/mnt:suid,rw")
    assert not {"ro", "noexec", "nosuid"} & set(shown.split()[0].split(","))


def test_bind_without_what_is_mounted_below(root: Runner, layers: Layers) -> None:
    place = layers(root)
    script = """
        mount -t tmpfs none "$1/lower"; touch "$1/lower/covered"; shift; exec "$@"
        """
    for option, wanted in (("rbind", "covered\n"), ("norbind", "a\nboth\n")):
        command = [*root.xbuild, "run", "--bind", f"{place}:/mnt:{option}", root.tree("arm64")]
        apart = ["unshare", "--mount", "sh", "-ec", script, "sh", place]
        done = root.user.run([*apart, *command, "ls", "/mnt/lower"])
        assert (done.returncode, done.stdout) == (0, wanted), done.stderr


def test_idmap_as_asked(root: Runner, layers: Layers) -> None:
    place = layers(root)
    shown = root.shell("arm64", "stat -c %u /mnt/a", "--bind", f"{place}/lower:/mnt:noidmap")
    assert shown == "65534\n"
    shown = root.shell("arm64", "stat -c %u /mnt/a", "--bind", f"{place}/lower:/mnt:idmap")
    assert shown == "0\n"
    done = root.run("--bind", "/proc:/mnt:idmap", root.tree("arm64"), "true")
    assert done.returncode == 125
    assert "cannot be idmapped" in done.stderr


def test_options_of_tmpfs(runner: Runner) -> None:
    uid = "0" if runner.kind == "plain" else "5"
    script = "stat -c '%u %a' /mnt; cp /bin/true /mnt; /mnt/true 2>&1 || true"
    words = ("--tmpfs", f"/mnt:uid={uid},mode=750,size=1m,noexec")
    shown = runner.shell("arm64", script, *words)
    assert shown.startswith(f"{uid} 750\n")
    assert "Permission denied" in shown


def test_thousand_binds(root: Runner, layers: Layers) -> None:
    place = layers(root)
    words = [f"--bind={place}/lower:/mnt/{number}" for number in range(1000)]
    done = root.run(*words, root.tree("arm64"), "sh", "-c", "cat /mnt/*/a | sort | uniq -c")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1000", "a", "of", "lower"]
    assert len(notes(done)) == 1


def test_full_upper_layer(root: Runner, layers: Layers) -> None:
    """ENOSPC reaches the command, and nothing else is harmed."""
    place = layers(root)
    script = """
        mount -t tmpfs -o size=1m none "$1/upper"; mkdir "$1/upper/upper"; shift; exec "$@"
        """
    overlay = f"{place}/lower:{place}/upper/upper:/mnt"
    command = [*root.xbuild, "run", "--overlay", overlay, root.tree("arm64"), "--", "sh", "-c"]
    apart = ["unshare", "--mount", "sh", "-ec", script, "sh", place]
    fill = "dd if=/dev/zero of=/mnt/big bs=64k count=100; cat /mnt/a; exit 3"
    done = root.user.run([*apart, *command, fill])
    assert (done.returncode, done.stdout) == (3, "a of lower\n")
    assert "No space left on device" in done.stderr
