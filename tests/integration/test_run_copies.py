"""Copies into a container before its command, and out of it afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.runs import Runner, notes, write_program
from xbuild.record import HostPath

Place = Callable[[Runner], HostPath]


@pytest.fixture
def place(new_tree: Callable[..., HostPath]) -> Place:
    """A directory of the runner's own: a file, a program, a link, a directory with a file."""

    def make(runner: Runner) -> HostPath:
        path = new_tree(runner.user)
        write_program(f"{path}/source/file", "content\n", 0o640)
        write_program(f"{path}/source/deep/program", "#!/bin/sh\necho ran\n")
        os.symlink("deep/program", f"{path}/source/link")
        os.utime(f"{path}/source/file", (1e9, 1e9))
        os.mkdir(f"{path}/out")
        subprocess.run(["chown", "-hR", f"{runner.user.uid}:{runner.user.gid}", path], check=True)
        return path

    return make


def test_copy_in(runner: Runner, place: Place) -> None:
    """Into a directory that is there, or under a new name; it is root's inside."""
    path = place(runner)
    words = ("--copy-in", f"{path}/source:/root/new", "--copy-in", f"{path}/source/file:/tmp")
    script = """
        cd /root/new; stat -c '%n %a %u:%g %Y' file; ./link; cat /tmp/file; echo mine >file
        """
    shown = runner.output("-x", *words, runner.tree("arm64"), "sh", "-ec", script)
    assert shown == "file 640 0:0 1000000000\nran\ncontent\n"
    with open(f"{path}/source/file", encoding="ascii") as file:
        assert file.read() == "content\n"


def test_copy_out(runner: Runner, place: Place) -> None:
    """Also when the command fails: what is outside is the caller's, without set-user-ID."""
    path = place(runner)
    script = """
        mkdir -p /tmp/made/deep; echo built >/tmp/made/deep/file; ln -s deep/file /tmp/made/link
        mkfifo /tmp/made/fifo; chmod 4755 /tmp/made/deep/file; exit 3
        """
    copies = (
        f"/tmp/made:{path}/out",
        f"/tmp/made/link:{path}/out/one",
        f"/tmp/made/link:{path}/new/",
    )
    words = [word for copy in copies for word in ("--copy-out", copy)]
    done = runner.run(*words, runner.tree("arm64"), "sh", "-c", script)
    assert done.returncode == 3, done.stderr
    assert sorted(os.listdir(f"{path}/out/made")) == ["deep", "link"]
    assert os.readlink(f"{path}/out/made/link") == "deep/file"
    for name in ("out/made/deep/file", "out/one", "new/link"):
        status = os.lstat(f"{path}/{name}")
        assert (status.st_uid, status.st_gid) == (runner.user.uid, runner.user.gid)
        assert status.st_mode & 0o7777 == 0o755
        with open(f"{path}/{name}", encoding="ascii") as file:
            assert file.read() == "built\n"


def test_root_copies_what_root_alone_can_read(root: Runner, place: Place) -> None:
    path = place(root)
    os.chmod(f"{path}/source/file", 0o600)
    words = ("--copy-in", f"{path}/source/file:/tmp/file", "--copy-out", f"/tmp/file:{path}/out")
    assert root.output(*words, root.tree("arm64"), "cat", "/tmp/file") == "content\n"
    assert os.stat(f"{path}/out/file").st_mode & 0o777 == 0o600


def test_source_that_is_missing(runner: Runner, place: Place) -> None:
    """On the way in nothing runs; on the way out the run has failed, and says why."""
    path, tree = place(runner), runner.tree("arm64")
    done = runner.run("--copy-in", f"{path}/none:/tmp/x", tree, "echo", "ran")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"{path}/none" in done.stderr
    done = runner.run("--copy-out", f"/tmp/none:{path}/out", tree, "echo", "ran")
    assert (done.returncode, done.stdout) == (125, "ran\n")
    assert any("Cannot copy /tmp/none" in note for note in notes(done))


def test_hostile_container_gets_nowhere(root: Runner, place: Place) -> None:
    """A link at the destination is replaced, not followed; nothing is read by a magic link."""
    path = place(root)
    write_program(f"{path}/victim", "safe\n", 0o644)
    os.symlink(f"{path}/victim", f"{path}/out/file")
    words = ("--copy-out", f"/tmp/file:{path}/out")
    root.output(*words, root.tree("arm64"), "sh", "-c", "echo evil >/tmp/file")
    with open(f"{path}/victim", encoding="ascii") as file:
        assert file.read() == "safe\n"
    script = "ln -s /proc/1/root /tmp/root; ln -s /proc/self/fd /tmp/fd"
    for source in ("/tmp/root/etc/hostname", "/tmp/fd/0"):
        words = ("--copy-out", f"{source}:{path}/out/got")
        assert root.run(*words, root.tree("arm64"), "sh", "-c", script).returncode == 125


def test_link_that_a_guest_laid_is_not_followed(runner: Runner, place: Place) -> None:
    """Neither on the way to a destination that it may write to, nor at its end."""
    path, tree = place(runner), runner.tree("arm64")
    shared = ("--bind", f"{path}/source:/mnt")
    ending = f"--copy-out=/tmp/log:{path}/source/log"
    lay = f"echo evil >/tmp/log; rm -rf /mnt/deep; ln -s {path}/out /mnt/log"
    assert runner.run(*shared, ending, tree, "sh", "-ec", lay).returncode == 0
    with open(f"{path}/source/log", encoding="ascii") as file:
        assert file.read() == "evil\n"
    os.mkdir(f"{path}/source/deep")
    os.chown(f"{path}/source/deep", runner.user.uid, runner.user.gid)
    on_the_way = f"--copy-out=/tmp/log:{path}/source/deep/log"
    lay = f"echo evil >/tmp/log; rmdir /mnt/deep; ln -s {path}/out /mnt/deep"
    done = runner.run(*shared, on_the_way, tree, "sh", "-ec", lay)
    assert done.returncode == 125
    assert any("Too many levels of symbolic links" in note for note in notes(done))
    assert os.listdir(f"{path}/out") == []


def test_links_of_the_callers_are_followed(root: Runner, place: Place) -> None:
    path = place(root)
    os.symlink("out", f"{path}/way")
    os.symlink("out", f"{path}/end")
    words = (f"--copy-out=/tmp/log:{path}/way/new/log", f"--copy-out=/tmp/log:{path}/end")
    root.output(*words, root.tree("arm64"), "sh", "-c", "echo built >/tmp/log")
    assert sorted(os.listdir(f"{path}/out")) == ["log", "new"]
    assert os.listdir(f"{path}/out/new") == ["log"]


def test_directories_without_end(root: Runner, place: Place) -> None:
    path = place(root)
    script = "mkdir -p /tmp/d/$(printf 'a/%.0s' $(seq 1200))"
    words = (f"--copy-out=/tmp/d:{path}/out", f"--copy-out=/etc/passwd:{path}/name")
    done = root.run(*words, root.tree("arm64"), "sh", "-ec", script)
    assert done.returncode == 125
    (said,) = [note for note in notes(done) if "Cannot copy" in note]
    assert "File name too long" in said
    assert "Traceback" not in done.stderr
    assert os.path.getsize(f"{path}/name")


def test_large_file_both_ways(root: Runner, place: Place) -> None:
    path = place(root)
    with open(f"{path}/source/large", "wb") as file:
        for number in range(20000):
            file.write(number.to_bytes(4) * 256)
    words = ("--copy-in", f"{path}/source/large:/tmp", "--copy-out", f"/tmp/large:{path}/out")
    root.output(*words, root.tree("arm64"), "true")
    assert subprocess.run(["cmp", f"{path}/source/large", f"{path}/out/large"]).returncode == 0


@pytest.mark.parametrize(
    "words", [("--copy-in", "a"), ("--copy-out", "a:/b"), ("--copy-in", "a:b")]
)
def test_what_is_no_copy(root: Runner, words: tuple[str, str]) -> None:
    assert root.run(*words, root.tree("arm64"), "true").returncode == 2


def test_what_a_process_one_leaves_is_copied_out(root: Runner, place: Place) -> None:
    path = place(root)
    words = ("--as-pid1", f"--copy-out=/tmp/left:{path}/left", root.tree("arm64"))
    assert root.run(*words, "sh", "-c", "echo $$ >/tmp/left; exit 3").returncode == 3
    with open(f"{path}/left", encoding="ascii") as file:
        assert file.read() == "1\n"


def test_copied_out_of_one_that_heeds_no_sigterm_when_time_is_up(
    runner: Runner, place: Place
) -> None:
    """However long that takes: more than such a command is given to end."""
    out = f"{place(runner)}/big"
    words = ("--idle-timeout", "2", "--kill-timeout", "0.1", "--copy-out", f"/tmp/big:{out}")
    script = "trap '' TERM; head -c 200000000 /dev/zero >/tmp/big; while :; do sleep 1; done"
    done = runner.run("-x", *words, runner.tree("arm64"), "sh", "-c", script)
    assert done.returncode == 124
    assert "xbuild: Time is up: nothing has moved for 2 s (--idle-timeout)" in done.stderr
    assert os.path.getsize(out) == 200000000, done.stderr
