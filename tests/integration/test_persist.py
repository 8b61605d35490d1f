"""Changes kept apart from a tree: run --persist, diff, commit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.runs import Runner
from tests.trees import tree_hash
from xbuild.record import HostPath

Fresh = Callable[..., HostPath]

# Each kind of change that overlayfs has a way of its own for.
CHANGES = """
    echo new >/root/new; echo longer text >/etc/hostname; rm /etc/debian_version
    rm -r /var/log; mkdir /var/log; echo in the new one >/var/log/file
    rm -r /usr/share/doc; ln -s nowhere /usr/share/doc
    rm /usr/bin/yes; mkdir /usr/bin/yes; echo a directory >/usr/bin/yes/file
    chmod 700 /usr/share; mv /etc/issue /etc/issue.moved
    mkdir -p /opt/deep/er; echo one >/opt/one; ln /opt/one /opt/deep/same; mkfifo /opt/fifo
    touch -d 2001-02-03 /opt/old; rm -r /opt/deep/er; : >/opt/empty
    mkdir /srv/gone; rmdir /srv/gone; echo back >/usr/bin/whoami; rm /usr/bin/whoami
    """
WITH_OWNERS = "chown 5:6 /opt/one /opt/old; chown -h 7 /usr/share/doc;"
# Of everything but what the container itself mounts: name, kind, mode, owner, size, times, content.
LISTING = """
    cd /; find bin boot etc home lib opt root srv usr var -xdev ! -path etc/hosts \\
        ! -path etc/resolv.conf ! -type d -printf '%p %y %m %U:%G %n %s %T@ %l\\n' | sort
    find bin boot etc home lib opt root srv usr var -xdev -type d -printf '%p %m %U:%G %T@\\n' \\
        | sort
    find opt root etc var/log usr/bin/yes -xdev -type f ! -path etc/hosts ! -path etc/resolv.conf \\
        -exec sha256sum '{}' + | sort
    """


@pytest.fixture
def place(reachable_directory: HostPath, tmp_path: os.PathLike[str]) -> Callable[[Runner], str]:
    def make(runner: Runner) -> str:
        path = f"{reachable_directory}/changes-{os.path.basename(tmp_path)}"
        os.mkdir(path)
        os.chown(path, runner.user.uid, runner.user.gid)
        return f"{path}/kept"

    return make


def xbuild(runner: Runner, *words: str) -> subprocess.CompletedProcess[str]:
    return runner.user.run([*runner.xbuild, *words])


def changes_of(runner: Runner) -> str:
    return CHANGES if runner.kind == "plain" else CHANGES + WITH_OWNERS


def view(runner: Runner, tree: str, *options: str) -> list[str]:
    return runner.output(*options, tree, "--", "sh", "-ec", LISTING).splitlines()


def test_changes_are_kept_apart_and_folded_back(
    runner: Runner, fresh_tree: Fresh, place: Callable[[Runner], str]
) -> None:
    """What the container showed of both is what the tree has afterwards, to the last time."""
    tree, kept = fresh_tree("arm64", runner.user), place(runner)
    before = tree_hash(tree)
    runner.output("--persist", kept, tree, "sh", "-ec", changes_of(runner))
    assert tree_hash(tree) == before
    shown = view(runner, tree, "--persist", kept)
    done = xbuild(runner, "commit", kept)
    assert done.returncode == 0, done.stderr
    assert view(runner, tree) == shown
    assert sorted(os.listdir(kept)) == ["tree"]
    assert xbuild(runner, "diff", kept).stdout == ""
    assert [n for n in os.listdir(os.path.dirname(tree)) if "xbuild" in n] == []
    attributes = subprocess.run(
        ["python3", "-c", _ALL_ATTRIBUTES, tree], capture_output=True, text=True, check=True
    )
    assert attributes.stdout == ""


_ALL_ATTRIBUTES = """
import os, sys
for here, directories, files in os.walk(sys.argv[1]):
    for name in (".", *files):
        path = os.path.join(here, name)
        for found in os.listxattr(path, follow_symlinks=False):
            if "overlay" in found:
                print(path, found)
"""


def test_diff(runner: Runner, fresh_tree: Fresh, place: Callable[[Runner], str]) -> None:
    tree, kept = fresh_tree("arm64", runner.user), place(runner)
    runner.output("--persist", kept, tree, "sh", "-ec", changes_of(runner))
    lines = set(xbuild(runner, "diff", kept).stdout.splitlines())
    assert {
        *("A /root/new", "D /etc/debian_version", "A /var/log/file", "C /usr/share/doc"),
        *("C /usr/bin/yes", "A /usr/bin/yes/file", "C /usr/share", "D /usr/bin/whoami"),
        *("A /opt/one", "A /opt/deep", "A /opt/deep/same", "A /etc/issue.moved", "D /etc/issue"),
    } <= lines
    assert not {"C /etc", "C /root", "A /srv/gone", "A /opt/deep/er", "C /var"} & lines
    document = json.loads(xbuild(runner, "diff", "--json", kept).stdout)
    assert (document["schema"], document["tree"]) == ("xbuild.diff/1", tree)
    letters = {"added": "A", "changed": "C", "deleted": "D"}
    assert {f"{letters[c['kind']]} {c['path']}" for c in document["changes"]} == lines


def test_layer_on_another_file_system(root: Runner, fresh_tree: Fresh) -> None:
    """No hard link leads there: what changed is copied, hard links among it included."""
    tree = fresh_tree("arm64", root.user)
    kept = f"/dev/shm/xbuild-test-{os.getpid()}"
    try:
        root.output("--persist", kept, tree, "sh", "-ec", changes_of(root))
        shown = view(root, tree, "--persist", kept)
        assert xbuild(root, "commit", kept).returncode == 0
        assert view(root, tree) == shown
    finally:
        subprocess.run(["rm", "-rf", kept], check=True)


def test_changes_are_of_one_tree(
    root: Runner, fresh_tree: Fresh, place: Callable[[Runner], str]
) -> None:
    one, other, kept = fresh_tree("arm64"), fresh_tree("arm64"), place(root)
    root.output("--persist", kept, one, "touch", "/root/new")
    done = root.run("--persist", kept, other, "true")
    assert done.returncode == 2
    assert "keeps the changes of another tree" in done.stderr


def test_one_container_at_a_time_writes(
    root: Runner, fresh_tree: Fresh, place: Callable[[Runner], str]
) -> None:
    tree, kept = fresh_tree("arm64"), place(root)
    words = ("--persist", kept, tree, "sh", "-c", "echo ready; read x")
    with root.spawn(*words, stdin=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        done = root.run("--persist", kept, tree, "true")
        assert "another container writes to" in done.stderr
        done = xbuild(root, "commit", kept)
        assert done.returncode == 125
        assert "is in use" in done.stderr
        run.communicate("\n")
    assert xbuild(root, "commit", kept).returncode == 0


def test_two_commits_at_once(
    root: Runner, fresh_tree: Fresh, place: Callable[[Runner], str]
) -> None:
    tree, kept = fresh_tree("arm64"), place(root)
    root.output("--persist", kept, tree, "sh", "-ec", changes_of(root))
    shown = view(root, tree, "--persist", kept)
    commits = [
        subprocess.Popen([*root.xbuild, "commit", kept], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [(each.communicate()[1], each.returncode) for each in commits]
    assert 0 in [status for _, status in ends], ends
    for said, status in ends:
        assert status == 0 or "is in use" in said
    assert view(root, tree) == shown


def test_commit_that_is_killed_leaves_a_whole_tree(
    root: Runner, fresh_tree: Fresh, place: Callable[[Runner], str]
) -> None:
    """The tree is the old one or the new one, and the next commit completes it."""
    tree, kept = fresh_tree("arm64"), place(root)
    before = view(root, tree)
    root.output("--persist", kept, tree, "sh", "-ec", changes_of(root))
    shown = view(root, tree, "--persist", kept)
    old, new = [without_links(each) for each in (before, shown)]
    for delay_s in (0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5):
        commit = subprocess.Popen([*root.xbuild, "commit", kept], start_new_session=True)
        time.sleep(delay_s)
        os.killpg(commit.pid, signal.SIGKILL)
        commit.wait()
        now = without_links(view(root, tree))
        assert now in (old, new)
    assert xbuild(root, "commit", kept).returncode == 0
    assert view(root, tree) == shown


def without_links(listing: list[str]) -> list[str]:
    """Leave out how many names a file has: an unfinished tree beside has it, too."""
    return [" ".join(w for n, w in enumerate(line.split(" ")) if n != 4) for line in listing]


def test_what_is_no_directory_of_changes(root: Runner, tmp_path: os.PathLike[str]) -> None:
    for command in ("diff", "commit"):
        done = xbuild(root, command, str(tmp_path))
        assert done.returncode == 125
        assert "keeps no changes" in done.stderr


def test_tree_that_is_a_mount_point_is_refused(
    root: Runner, fresh_tree: Fresh, place: Callable[[Runner], str]
) -> None:
    tree, kept = fresh_tree("arm64"), place(root)
    script = """
        mount --bind "$tree" "$tree"
        "$xbuild" run --persist "$kept" "$tree" touch /root/new
        "$xbuild" commit "$kept" || echo $?; ls "$tree/root"
        """
    values = {"tree": tree, "xbuild": root.xbuild[0], "kept": kept}
    words = ["unshare", "--mount", "--propagation=private", "sh", "-ec", script]
    done = root.user.run(words, env=root.user.environment(**values))
    assert done.stdout == "125\n"
    assert "is it a mount point?" in done.stderr
    assert os.listdir(os.path.dirname(tree)) == ["tree"]


def test_full_file_system_leaves_a_whole_layer(root: Runner, fresh_tree: Fresh) -> None:
    """ENOSPC in the layer of changes: what was written before is there, and can be folded."""
    tree = fresh_tree("arm64")
    script = """
        mount -t tmpfs -o size=1m none /mnt
        "$xbuild" run --persist /mnt/kept "$tree" -- sh -c '
            echo first >/root/first; dd if=/dev/zero of=/root/big bs=64k count=99; rm /root/big'
        "$xbuild" commit /mnt/kept; ls "$tree/root"
        """
    values = {"tree": tree, "xbuild": root.xbuild[0]}
    words = ["unshare", "--mount", "--propagation=private", "sh", "-c", script]
    done = root.user.run(words, env=root.user.environment(**values))
    assert "No space left on device" in done.stderr
    assert done.stdout.splitlines()[-1:] == ["first"]


def test_directories_without_end(
    root: Runner, fresh_tree: Fresh, place: Callable[..., str]
) -> None:
    """What follows them gives up in words, and nothing has changed."""
    kept, tree = place(root), fresh_tree("arm64", root.user)
    script = "mkdir -p /opt/$(printf 'a/%.0s' $(seq 1500))"
    root.output("--persist", kept, tree, "sh", "-ec", script)
    for words in (("diff", kept), ("commit", kept)):
        done = xbuild(root, *words)
        assert (done.returncode, done.stdout) == (125, "")
        assert "nested too deeply" in done.stderr
    assert os.listdir(f"{tree}/opt") == []
    root.output(tree, "sh", "-ec", f"{script}; rm -r /var/lib/dpkg")  # else that is the key's
    done = root.run("--cache-key", tree)
    assert (done.returncode, done.stdout) == (125, "")
    said = "xbuild: Directories are nested too deeply to be followed\nhint: "
    assert done.stderr.startswith(said)
