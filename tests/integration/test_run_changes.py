"""What a run changes and where: the tree itself, an overlay, nothing, a tmpfs of the request."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.patience import PATIENCE_S
from tests.runs import Runner, notes
from tests.trees import tree_hash
from xbuild.record import HostPath

Fresh = Callable[..., HostPath]

SPOIL = """
    echo x >>/etc/passwd; rm /etc/debian_version; mkdir /etc/new /new; chmod 700 /opt
    mv /usr/bin/tac /usr/bin/cat2; ln -s x /etc/link; touch -d 2001-01-01 /etc/hosts2 /usr
    """


def test_changes_stay_in_the_tree(runner: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", runner.user)
    assert runner.output(tree, "sh", "-ec", SPOIL) == ""
    assert os.path.isdir(f"{tree}/new")
    assert not os.path.exists(f"{tree}/etc/debian_version")
    status = os.stat(f"{tree}/new")
    assert (status.st_uid, status.st_gid) == (runner.user.uid, runner.user.gid)


def test_a_run_itself_changes_nothing(runner: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", runner.user)
    before = tree_hash(tree)
    assert runner.output(tree, "sh", "-c", ": >/tmp/x >/run/x >/dev/shm/x; ls /etc") != ""
    assert tree_hash(tree) == before


@pytest.mark.parametrize("options", [["--ephemeral"], ["-x"]])
def test_ephemeral_changes_vanish(runner: Runner, options: list[str]) -> None:
    tree = runner.tree("arm64")
    before = tree_hash(tree)
    script = SPOIL + "cat2 /etc/passwd | head -n 1; stat -c %a /opt; ls -d /new"
    assert runner.output(*options, tree, "sh", "-ec", script).split() == ["x", "700", "/new"]
    assert tree_hash(tree) == before


def test_four_ephemeral_runs_at_once(runner: Runner) -> None:
    tree = runner.tree("arm64")
    before = tree_hash(tree)
    script = (
        "echo $1 >/etc/mine; mv /etc/hosts2 /etc/x 2>/dev/null; sleep 0.3; cat /etc/mine; ls /etc"
    )
    runs = [runner.spawn("-x", tree, "sh", "-c", script, "sh", str(n)) for n in range(4)]
    answers = [process.communicate(timeout=PATIENCE_S)[0].split() for process in runs]
    assert [answer[0] for answer in answers] == ["0", "1", "2", "3"]
    assert [process.returncode for process in runs] == [0] * 4
    assert tree_hash(tree) == before


def test_ephemeral_root_looks_as_the_tree_s(runner: Runner) -> None:
    script = "stat -c '%a %u %g %F' / /etc /root /usr/bin/passwd 2>/dev/null"
    assert runner.shell("arm64", script + "||:", "-x") == runner.shell("arm64", script + "||:")


def test_read_only(runner: Runner) -> None:
    tree = runner.tree("arm64")
    script = """
        for path in / /etc /root /usr/bin /var/tmp; do touch $path/x 2>/dev/null && echo $path; done
        chmod 700 /opt 2>/dev/null && echo chmod
        for path in /tmp /run /dev/shm; do touch $path/x || echo not $path; done
        """
    assert runner.output("--read-only", tree, "sh", "-c", script) == ""


def test_read_only_holds_for_ephemeral_runs_too(runner: Runner) -> None:
    done = runner.run("--read-only", "--ephemeral", runner.tree("arm64"), "touch", "/etc/x")
    assert (done.returncode, "Read-only file system" in done.stderr) == (1, True)


def test_tmpfs_with_size_and_mode(runner: Runner) -> None:
    words = ("--tmpfs", "/mnt:size=1m,mode=0750", "--tmpfs=/var/new", "--tmpfs", "/opt:ro")
    script = """
        stat -c '%a %u:%g %n' /mnt /var/new /opt; df -k /mnt | awk 'NR == 2 {print $2}'
        touch /opt/x 2>/dev/null || echo refused
        """
    wanted = ["750 0:0 /mnt", "1777 0:0 /var/new", "1777 0:0 /opt", "1024", "refused"]
    assert runner.shell("arm64", script, *words).splitlines() == wanted


def test_full_tmpfs_is_the_command_s_trouble(runner: Runner) -> None:
    tree = runner.tree("arm64")
    script = "head -c 3000000 /dev/zero >/mnt/file; echo $?; stat -c %s /mnt/file; exit 7"
    done = runner.run("--tmpfs", "/mnt:size=1m", tree, "sh", "-c", script)
    assert (done.returncode, done.stdout.split()) == (7, ["1", "1048576"])
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("tmpfs", "status", "text"),
    [
        ("/mnt:bogus=1", 125, "bogus=1"),
        ("/mnt:size=huge", 2, "size=huge"),
        ("/mnt:mode=9", 2, "octal"),
        ("/mnt:mode=", 2, "octal"),
        ("relative", 2, "absolute"),
        ("", 2, "absolute"),
        ("/", 2, "Cannot mount on /:"),
        ("/run", 2, "Cannot mount on /run:"),
        ("/etc/passwd", 125, "no directory"),
        ("/../x", 2, "leaves the tree"),
    ],
)
def test_tmpfs_that_cannot_be(root: Runner, tmpfs: str, status: int, text: str) -> None:
    done = root.run("--tmpfs", tmpfs, root.tree("arm64"), "true")
    assert (done.returncode, text in done.stderr) == (status, True), done.stderr


@pytest.mark.parametrize("mount", ["tmpfs", "ramfs"])
def test_tree_on_another_file_system(root: Runner, mount: str) -> None:
    """An idmapped mount where its file system has them, else root's own number, and a note."""
    tree = root.tree("arm64")
    script = f"""
        mount -t {mount} none /mnt && cp -a {tree} /mnt/tree
        {" ".join(root.argv())} /mnt/tree sh -c 'id -u; stat -c %u:%g /etc/passwd; touch /etc/new'
        stat -c %u:%g /mnt/tree/etc/new
        """
    done = root.user.run(["unshare", "-m", "sh", "-ec", script])
    assert done.stdout.split() == ["0", "0:0", "0:0"], done.stderr


def test_tree_that_is_a_mount_point_with_mounts_below(root: Runner) -> None:
    tree = root.tree("arm64")
    script = f"""
        mount --bind {tree} /mnt && mount -t tmpfs tmpfs /mnt/srv && mkdir /mnt/srv/data
        mount -t proc proc /mnt/proc
        {" ".join(root.argv())} /mnt sh -c 'ls /srv; touch /srv/data/new; ls /proc/1/comm'
        {" ".join(root.argv())} -x /mnt sh -c 'ls /srv; touch /srv/data/x 2>/dev/null || echo ro'
        find /mnt/srv -type f
        """
    done = root.user.run(["unshare", "-m", "sh", "-ec", script])
    wanted = ["data", "/proc/1/comm", "data", "ro", "/mnt/srv/data/new"]
    assert done.stdout.split() == wanted, done.stderr
    assert any("/srv is a mount of its own" in note for note in notes(done))


def test_overlay_over_mounts_as_a_user(single: Runner) -> None:
    tree = single.tree("arm64")
    words = [*single.argv("--ephemeral", tree, "true")]
    script = f'mount -t tmpfs tmpfs {tree}/srv && exec "$@"'
    done = single.user.run(["unshare", "-Urm", "sh", "-c", script, "sh", *words])
    assert (done.returncode, f"{tree}/srv is mounted in it" in done.stderr) == (125, True)


def test_directory_with_too_many_entries(root: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", root.user)
    os.mkdir(f"{tree}/srv/many")
    for number in range(4097):
        os.symlink("x", f"{tree}/srv/many/{number}")
    words = ("--bind", "/etc:/srv/many/new", tree, "true")
    done = root.run(*words)
    assert (done.returncode, "too many entries" in done.stderr) == (125, True), done.stderr
    assert root.run("--ephemeral", *words).returncode == 0
