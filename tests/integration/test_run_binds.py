"""Files and directories of the host inside: binds, their mount points, what they cannot change."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

import pytest

from tests.runs import Runner, notes, write_program
from tests.trees import tree_hash
from xbuild.record import HostPath

Fresh = Callable[..., HostPath]
Source = Callable[[Runner], HostPath]


@pytest.fixture
def source(reachable_directory: HostPath) -> Iterator[Source]:
    """A directory of the runner's own, to be bound: a file, an empty directory, a device."""
    made: list[str] = []

    def make(runner: Runner) -> HostPath:
        place = os.path.join(runner.user.home, "source")
        write_program(f"{place}/file", "content\n", 0o644)
        os.mkdir(f"{place}/directory")
        for path in (place, f"{place}/file", f"{place}/directory"):
            os.chown(path, runner.user.uid, runner.user.gid)
        made.append(place)
        return HostPath(place)

    yield make
    for place in made:
        for path in (f"{place}/new", f"{place}/file"):
            if os.path.exists(path):
                os.unlink(path)
        os.rmdir(f"{place}/directory")
        os.rmdir(place)


def test_bind_is_written_as_its_owner(runner: Runner, source: Source) -> None:
    place = source(runner)
    script = "cat /mnt/file; stat -c %u:%g /mnt/file; echo new >/mnt/new"
    assert runner.shell("arm64", script, "--bind", f"{place}:/mnt").split() == ["content", "0:0"]
    status = os.stat(f"{place}/new")
    assert (status.st_uid, status.st_gid) == (runner.user.uid, runner.user.gid)


def test_read_only_bind(runner: Runner, source: Source) -> None:
    place = source(runner)
    before = tree_hash(place)
    script = """
        for attempt in 'echo x >/mnt/file' 'touch /mnt/new' 'rm /mnt/file' 'chmod 777 /mnt/file'
        do sh -c "$attempt" 2>/dev/null && echo "worked: $attempt"; done; cat /mnt/file
        """
    for bind in ("--bind-ro", "--bind"):
        suffix = ":ro" if bind == "--bind" else ""
        assert runner.shell("arm64", script, bind, f"{place}:/mnt{suffix}") == "content\n"
    assert tree_hash(place) == before


def test_missing_mount_points_are_shown_not_made(runner: Runner, source: Source) -> None:
    place, tree = source(runner), runner.tree("arm64")
    before = tree_hash(tree)
    words = ["--bind", f"{place}:/new/deep/er", "--bind", f"{place}/file:/etc/new.conf"]
    words += ["--tmpfs", "/var/lib/new", "--bind", f"{place}:/opt/a", "--bind", f"{place}:/opt/b"]
    script = "cat /new/deep/er/file /etc/new.conf /opt/a/file /opt/b/file; echo x >/var/lib/new/x"
    done = runner.run(*words, tree, "sh", "-ec", script)
    assert (done.returncode, done.stdout) == (0, "content\n" * 4)
    said = "\n".join(notes(done))
    for directory in ("/", "/etc", "/var/lib", "/opt"):
        assert f": {directory} is shown with it" in said
    assert tree_hash(tree) == before


def test_scaffold_keeps_the_rest_of_its_directory(root: Runner, source: Source) -> None:
    place, tree = source(root), root.tree("arm64")
    script = "cd /etc; ls -A; stat -c '%a %u %g %F %n' * .; readlink os-release; cat debian_version"
    words = ("--bind", f"{place}:/etc/new")
    shown = root.output(*words, tree, "sh", "-ec", script).splitlines()
    there = root.output(tree, "sh", "-ec", script).splitlines()
    assert set(there) <= set(shown)
    assert set(shown) - set(there) == {"new", "755 0 0 directory new"}


def test_scaffold_is_read_only_at_its_own_level_only(runner: Runner, fresh_tree: Fresh) -> None:
    tree = fresh_tree("arm64", runner.user)
    script = "touch /etc/added 2>/dev/null || echo refused; echo x >>/etc/issue; touch /etc/opt/new"
    assert runner.output("--tmpfs", "/etc/new", tree, "sh", "-ec", script) == "refused\n"
    assert os.path.exists(f"{tree}/etc/opt/new")


def test_mount_points_below_other_mounts(root: Runner, source: Source) -> None:
    """From the top down, whatever the order on the command line."""
    place = source(root)
    words = ["--bind", f"{place}/file:/mnt/a/b/file", "--bind", f"{place}:/mnt/d", "--tmpfs"]
    words += ["/mnt", "--tmpfs", "/mnt/d/directory:mode=711", "--bind", f"{place}:/tmp/x/y"]
    script = "cat /mnt/a/b/file /mnt/d/file /tmp/x/y/file; stat -c %a /mnt/d/directory"
    done = root.run(*words, root.tree("arm64"), "sh", "-ec", script)
    assert (done.stdout, notes(done)) == ("content\n" * 3 + "711\n", [])


def test_mount_point_missing_in_another_bind(root: Runner, source: Source) -> None:
    place = source(root)
    words = ("--bind", f"{place}:/mnt", "--bind", f"{place}:/mnt/missing")
    done = root.run(*words, root.tree("arm64"), "true")
    assert done.returncode == 125
    assert "mnt/missing: nothing is there to mount on" in done.stderr
    assert sorted(os.listdir(place)) == ["directory", "file"]


@pytest.mark.parametrize(
    "words",
    [[], ["--tmpfs", "/new"], ["--ephemeral"], ["--read-only"], ["--network", "none"]],
    ids=" ".join,
)
def test_no_way_leads_up_from_the_root(runner: Runner, words: list[str]) -> None:
    """A layer of mounts left under the root would show at /.. what lies beneath it."""
    script = (
        "stat -c %d:%i / /.. /../.. | sort -u | wc -l; ls -A / >/tmp/a; ls -A /.. | cmp - /tmp/a"
    )
    assert runner.shell("arm64", script, *words) == "1\n"


@pytest.mark.parametrize(
    ("bind", "status", "text"),
    [
        ("/no/such:/mnt", 125, "Cannot bind /no/such: there is no such file"),
        ("/etc:/etc/passwd", 125, "it is no directory"),
        ("/etc/passwd:/mnt", 125, "it is a directory"),
        ("/etc:/etc/passwd/below", 125, "/etc/passwd is no directory"),
        ("/etc:/../../outside", 2, "leaves the tree"),
        ("/etc:/mnt/../../outside", 2, "leaves the tree"),
        ("/etc:relative", 2, "absolute"),
        ("/etc:/", 2, "Cannot mount on /:"),
        ("/", 2, "Cannot mount on /:"),
        ("/dev", 2, "Cannot mount on /dev:"),
        ("/etc:/run/", 2, "Cannot mount on /run/:"),
        (":/mnt", 2, "without a source"),
        ("/etc:/mnt:fast", 2, "Not a bind"),
        ("/etc:/mnt:ro:more", 2, "Not a bind"),
        ("/etc:/proc/new", 125, "nothing is there to mount on"),
        ("/etc:/sys/new", 125, "nothing is there to mount on"),
    ],
)
def test_binds_that_cannot_be(root: Runner, bind: str, status: int, text: str) -> None:
    done = root.run("--bind", bind, root.tree("arm64"), "true")
    assert (done.returncode, text in done.stderr) == (status, True), done.stderr


def test_unreadable_source(ranged: Runner) -> None:
    done = ranged.run("--bind", "/root/secret:/mnt", ranged.tree("arm64"), "true")
    assert (done.returncode, "Cannot bind /root/secret: Perm" in done.stderr) == (125, True)


def test_links_in_the_tree_lead_nowhere_else(root: Runner, source: Source) -> None:
    """Mount points are found as path_resolution(7) says: /lib is usr/lib, and its .. is /usr."""
    place = source(root)
    words = [f"--bind={place}/file:/mnt/../lib/../etc/file", f"--bind={place}:/var/run/x"]
    shown = root.output(*words, root.tree("arm64"), "cat", "/usr/etc/file", "/run/x/file")
    assert shown == "content\n" * 2


@pytest.mark.parametrize("target", ["/escape/x", "/climb/x"])
def test_escaping_links_stay_inside(
    root: Runner, source: Source, fresh_tree: Fresh, target: str
) -> None:
    place, tree = source(root), fresh_tree("arm64", root.user)
    outside = HostPath(os.path.join(root.user.home, "outside"))
    os.makedirs(outside, exist_ok=True)
    os.symlink(outside, f"{tree}/escape")
    os.symlink("../../../../../../../../.." + outside, f"{tree}/climb")
    done = root.run("--bind", f"{place}:{target}", tree, "ls", target)
    assert done.stdout.split() == ["directory", "file"]
    assert os.listdir(outside) == []
    assert not os.path.exists(f"{tree}{outside}")


def test_device_nodes_work_and_stay_as_they_are(runner: Runner) -> None:
    before = os.stat("/dev/null")
    script = "echo x >/dev/zero2; head -c 2 /dev/zero2 | od -An -tx1; chmod 600 /dev/zero2 || :"
    script += "; chown 1 /dev/zero2 || :"
    shown = runner.shell("arm64", f"({script}) 2>/dev/null", "--bind", "/dev/zero:/dev/zero2")
    assert shown.split() == ["00", "00"]
    after = os.stat("/dev/zero")
    assert (stat.S_IMODE(after.st_mode), after.st_uid) == (0o666, 0)
    assert os.stat("/dev/null").st_mode == before.st_mode


def test_sockets_and_fifos(root: Runner, source: Source) -> None:
    fifo = os.path.join(root.user.home, "fifo")
    os.mkfifo(fifo)
    try:
        shown = root.shell("arm64", "stat -c %F /mnt/pipe", "--bind", f"{fifo}:/mnt/pipe")
        assert shown == "fifo\n"
    finally:
        os.unlink(fifo)


def test_two_hundred_binds(runner: Runner, source: Source) -> None:
    place = source(runner)
    words = [f"--bind={place}:/mnt/number-{number}" for number in range(200)]
    tree = runner.tree("arm64")
    assert runner.output(*words, tree, "sh", "-c", "cat /mnt/*/file | wc -l") == "200\n"


def test_source_with_a_colon(root: Runner, source: Source) -> None:
    place = source(root)
    odd = f"{place}/new"
    with open(odd, "w") as file:
        file.write("odd\n")
    named = os.path.join(root.user.home, "a:b\\c")
    os.rename(odd, named)
    try:
        escaped = named.replace("\\", "\\\\").replace(":", "\\:")
        assert root.shell("arm64", "cat /mnt/x", "--bind", f"{escaped}:/mnt/x") == "odd\n"
    finally:
        os.unlink(named)


def test_mounts_below_a_source_come_along(root: Runner) -> None:
    tree = root.tree("arm64")
    script = f"""
        mount -t tmpfs tmpfs /srv && mkdir /srv/below && mount -t tmpfs -o size=1m tmpfs /srv/below
        touch /srv/below/file && exec {" ".join(root.argv())} --bind /srv:/mnt {tree} ls /mnt/below
        """
    done = root.user.run(["unshare", "-m", "sh", "-ec", script])
    assert done.stdout == "file\n", done.stderr


def test_nothing_mounted_inside_reaches_the_host(root: Runner, source: Source) -> None:
    """Also where the host's mounts are shared, as systemd makes them."""
    place, tree = source(root), root.tree("arm64")
    script = f"""
        mount --make-rshared / && sort /proc/self/mountinfo >/tmp/before.$$
        {" ".join(root.argv())} --bind {place}:/mnt {tree} sh -c 'exit 0'
        sort /proc/self/mountinfo | diff /tmp/before.$$ - ; rm /tmp/before.$$
        """
    done = root.user.run(["unshare", "-m", "sh", "-ec", script])
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
