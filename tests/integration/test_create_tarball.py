"""``xbuild create TARGET --from ARCHIVE``: the tree that the archive has, whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence

import pexpect
import pytest

from tests.capability import require
from tests.conftest import OpenTerminal
from tests.crafted import Layout, Link, busybox, make_tar
from tests.patience import WORK_S
from tests.runs import KINDS, Kind, Runner, notes
from tests.trees import TreeStore
from tests.users import User
from xbuild.record import HostPath

NewPlace = Callable[[User], HostPath]
SMALL = make_tar(busybox("arm64"))
MIB = 1 << 20


def write(place: HostPath, name: str, content: bytes) -> HostPath:
    path = HostPath(f"{place}/{name}")
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o644)
    return path


def archive_of(members: Sequence[tuple[str, bytes, str, bytes]]) -> bytes:
    """Return an archive of (name, type, link's target, content)."""
    with io.BytesIO() as output:
        with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for name, kind, link, content in members:
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.size = kind, link, len(content)
                member.mode, member.devmajor, member.devminor = 0o755, 1, 3
                archive.addfile(member, io.BytesIO(content))
        return output.getvalue()


def create(
    runner: Runner, target: str, source: str, *options: str
) -> subprocess.CompletedProcess[str]:
    return runner.command("create", target, "--from", source, *options, timeout_s=WORK_S)


def test_a_real_tree(runner: Runner, new_place: NewPlace, tree_store: TreeStore) -> None:
    """Owners, modes and links are the archive's, as the container sees them."""
    place = new_place(runner.user)
    archive, tree = f"{place}/a.tar", f"{place}/tree"
    shutil.copyfile(tree_store.archive("arm64"), archive)
    done = create(runner, tree, archive)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tree}: arm64, Debian GNU/Linux 12 (bookworm)\n"
    with tarfile.open(archive) as members:
        expected = sorted(
            f"{member.name} {member.uid}:{member.gid} {member.mode:o}"
            for member in members
            if member.isdir() or member.isreg() or member.islnk()
        )
    command = ("find", "/", "-mount", "-type", "f,d", "-printf", r"%P %U:%G %m\n")
    seen = runner.output(tree, "--", *command, timeout_s=WORK_S)
    parts = ("usr/", "var/")
    wanted = [line for line in expected if line.startswith(parts)]
    found = [line for line in sorted(seen.splitlines()) if line.startswith(parts)]
    if runner.kind == "plain":
        assert any("owners are not kept" in note for note in notes(done))
        wanted = [" ".join((n, "0:0", m)) for n, _, m in (line.split() for line in wanted)]
    assert found == wanted


def _zstd(content: bytes) -> bytes:
    return subprocess.run(["zstd", "-c"], input=content, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("ending", "compress"),
    [(".tgz", gzip.compress), (".tar.xz", lzma.compress), (".bz2", bz2.compress), (".zst", _zstd)],
)
def test_compressed_archives(
    ending: str, compress: Callable[[bytes], bytes], ranged: Runner, new_place: NewPlace
) -> None:
    place = new_place(ranged.user)
    source = write(place, f"tree{ending}", compress(SMALL))
    assert create(ranged, f"{place}/tree", source).returncode == 0
    assert os.readlink(f"{place}/tree/bin/sh") == "/bin/busybox"


def test_digest(single: Runner, new_place: NewPlace) -> None:
    place = new_place(single.user)
    source = write(place, "a.tar", SMALL)
    digest = hashlib.sha256(SMALL).hexdigest()
    wrong = create(single, f"{place}/tree", source, "--sha256", "0" * 64)
    assert wrong.returncode == 125
    assert digest in wrong.stderr
    assert os.listdir(place) == ["a.tar"]
    assert create(single, f"{place}/tree", source, "--sha256", digest.upper()).returncode == 0


LEADING_OUT: dict[str, list[tuple[str, bytes, str, bytes]]] = {
    "parent": [("../evil", tarfile.REGTYPE, "", b"x")],
    "parent inside": [("a/../../evil", tarfile.REGTYPE, "", b"x")],
    "hard link out": [("a", tarfile.LNKTYPE, "../victim", b"")],
    "through a link": [("l", tarfile.SYMTYPE, "..", b""), ("l/evil", tarfile.REGTYPE, "", b"x")],
    "through an absolute link": [
        ("l", tarfile.SYMTYPE, "PLACE", b""),
        ("l/evil", tarfile.REGTYPE, "", b"x"),
    ],
    "through two links": [
        ("d/l", tarfile.SYMTYPE, "../..", b""),
        ("m", tarfile.SYMTYPE, "d/l", b""),
        ("m/evil", tarfile.REGTYPE, "", b"x"),
    ],
    "over a link": [("l", tarfile.SYMTYPE, "PLACE/victim", b""), ("l", tarfile.REGTYPE, "", b"x")],
    "hard link through a link": [
        ("l", tarfile.SYMTYPE, "PLACE", b""),
        ("h", tarfile.LNKTYPE, "l/victim", b""),
        ("h", tarfile.REGTYPE, "", b"overwritten"),
    ],
    "hard link to a link": [
        ("l", tarfile.SYMTYPE, "PLACE/victim", b""),
        ("h", tarfile.LNKTYPE, "l", b""),
        ("h", tarfile.REGTYPE, "", b"overwritten"),
    ],
    "absolute": [("PLACE/evil", tarfile.REGTYPE, "", b"x")],
    "absolute hard link": [("h", tarfile.LNKTYPE, "PLACE/victim", b"")],
    "chmod through a link": [
        ("l", tarfile.SYMTYPE, "PLACE", b""),
        ("l/", tarfile.DIRTYPE, "", b""),
    ],
}


@pytest.mark.parametrize("name", LEADING_OUT)
@pytest.mark.parametrize("kind", ["root", "range"])
def test_no_member_leaves_the_target(
    name: str, kind: Kind, runner_of: Callable[[Kind], Runner], new_place: NewPlace
) -> None:
    """Refused, or made inside; never followed to where it leads, nor read from there."""
    runner = runner_of(kind)
    place = new_place(runner.user)
    write(place, "victim", b"secret")
    os.chmod(place, 0o711)
    members = [
        (path.replace("PLACE", place), type_, link.replace("PLACE", place), content)
        for path, type_, link, content in LEADING_OUT[name]
    ]
    source = write(place, "a.tar", archive_of(members))
    before = os.stat(place)
    done = create(runner, f"{place}/tree", source)
    assert done.returncode in (0, 125)
    assert not os.path.lexists(f"{place}/evil")
    with open(f"{place}/victim", "rb") as victim:
        assert victim.read() == b"secret"
    assert os.stat(f"{place}/victim").st_nlink == 1
    assert (before.st_mode, before.st_uid) == (os.stat(place).st_mode, os.stat(place).st_uid)
    expected = {"a.tar", "victim"} | ({"tree"} if done.returncode == 0 else set())
    assert set(os.listdir(place)) == expected
    if name.startswith("parent") or name == "hard link out":
        assert done.returncode == 125
        assert "leads out of the tree" in done.stderr
    if name == "absolute":
        assert os.path.exists(f"{place}/tree{place}/evil")


@pytest.mark.parametrize("kind", KINDS)
def test_device_nodes(kind: Kind, runner_of: Callable[[Kind], Runner], new_place: NewPlace) -> None:
    """Root's are kept; for others they are left out, with what links to them, and named."""
    runner = runner_of(kind)
    place = new_place(runner.user)
    source = write(
        place,
        "a.tar",
        archive_of(
            [
                ("bin/sh", tarfile.REGTYPE, "", dict_of(busybox("arm64"))["bin/busybox"]),
                ("dev/null", tarfile.CHRTYPE, "", b""),
                ("dev/again", tarfile.LNKTYPE, "dev/null", b""),
                ("dev/pipe", tarfile.FIFOTYPE, "", b""),
                ("etc/motd", tarfile.REGTYPE, "", b"hello"),
            ]
        ),
    )
    done = create(runner, f"{place}/tree", source)
    assert done.returncode == 0, done.stderr
    names = set(os.listdir(f"{place}/tree/dev"))
    if kind == "root":
        assert names == {"null", "again", "pipe"}
        assert os.stat(f"{place}/tree/dev/null").st_rdev == os.makedev(1, 3)
    else:
        assert names == {"pipe"}
        assert any("left out: dev/null, dev/again" in note for note in notes(done))
    assert os.path.getsize(f"{place}/tree/etc/motd") == 5


def dict_of(layout: Layout) -> dict[str, bytes]:
    return {name: content for name, content in layout.items() if isinstance(content, bytes)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(SMALL)[:-200], "cut off"),
        (SMALL[:700], "cut off"),
        (gzip.compress(SMALL)[:60] + bytes(40) + gzip.compress(SMALL)[100:], "damaged"),
        (SMALL[:1024] + b"x" * 512 + SMALL[1536:], "damaged"),
        (b"#!/bin/sh\necho\n", "not an archive of a tree\nhint: name a tar archive itself"),
        (b"", "not an archive"),
        (None, "a.tar\nhint: other sources begin with their kind"),
    ],
    ids=["cut gzip", "cut", "garbled gzip", "garbled", "a script", "empty", "missing"],
)
def test_damaged_archives(
    content: bytes | None, words: str, single: Runner, new_place: NewPlace
) -> None:
    place = new_place(single.user)
    if content is not None:
        write(place, "a.tar", content)
    done = create(single, f"{place}/tree", f"{place}/a.tar")
    assert done.returncode == 125
    assert words in done.stderr
    assert set(os.listdir(place)) <= {"a.tar"}


def test_a_bomb_is_stopped(single: Runner, new_place: NewPlace) -> None:
    place = new_place(single.user)
    zeros = archive_of([("bin/sh", tarfile.REGTYPE, "", bytes(64 * MIB))])
    source = write(place, "a.tar.gz", gzip.compress(zeros, 1))
    assert os.path.getsize(source) < MIB
    done = create(single, f"{place}/tree", source, "--size-limit", "32M")
    assert done.returncode == 125
    assert "unpacks to more than 32.0 MiB" in done.stderr
    assert "--size-limit" in done.stderr
    assert os.listdir(place) == ["a.tar.gz"]


@pytest.mark.parametrize(
    ("options", "size", "count"), [("size=300m", 100 * MIB, 1), ("nr_inodes=1500", 0, 3000)]
)
def test_room_is_looked_at(
    options: str, size: int, count: int, root: Runner, new_place: NewPlace
) -> None:
    """Before a file that does not fit is begun, and where there are too many files."""
    place = new_place(root.user)
    members = [(f"f{number}", tarfile.REGTYPE, "", bytes(size)) for number in range(count)]
    source = write(place, "a.tar", archive_of(members))
    os.mkdir(f"{place}/small")
    script = """mount -t tmpfs -o "$1" none "$2" || exit
        "$3" create "$2/tree" --from "$4"
        status=$?
        ls -A "$2"
        exit $status"""
    done = root.user.run(
        ["unshare", "-m", "sh", "-c", script, "sh", options, f"{place}/small", *root.xbuild, source]
    )
    assert done.returncode == 125
    assert "left" in done.stderr
    assert done.stdout == ""


def test_a_place_that_another_has_made_is_refused(
    single: Runner, root: Runner, new_place: NewPlace
) -> None:
    """Whose it is could exchange the tree while it is made: beside a target in /tmp, say."""
    place = new_place(root.user)
    os.chmod(place, 0o1777)
    os.mkdir(f"{place}/.tree.xbuild-create")
    os.chown(f"{place}/.tree.xbuild-create", single.user.uid, single.user.gid)
    done = create(root, f"{place}/tree", "rootfs:EMPTY", "--arch", "arm64")
    assert done.returncode == 125
    assert "is another user's" in done.stderr
    assert os.listdir(place) == [".tree.xbuild-create"]


def test_a_target_that_exists(single: Runner, new_place: NewPlace) -> None:
    place = new_place(single.user)
    source = write(place, "a.tar", SMALL)
    for name in ("tree", "empty"):
        os.mkdir(f"{place}/{name}")
    write(HostPath(f"{place}/tree"), "file", b"mine")
    for name in ("tree", "empty", "a.tar"):
        done = create(single, f"{place}/{name}", source)
        assert done.returncode == 125
        assert f"{place}/{name} exists already" in done.stderr
    assert os.listdir(f"{place}/tree") == ["file"]
    done = create(single, f"{place}/nowhere/tree", source)
    assert done.returncode == 125
    assert f"Cannot make {place}/nowhere/tree: No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my tree", "next: xbuild run '{}'"),
        ("t.tar", "next: xbuild create DIRECTORY --from {}"),
        ("t.img", "next: xbuild run {}; or xbuild image flash {} DEVICE"),
    ],
)
def test_a_person_is_told_what_to_do_next(
    name: str, words: str, single: Runner, new_place: NewPlace, open_terminal: OpenTerminal
) -> None:
    place = new_place(single.user)
    command = [*single.xbuild, "create", f"{place}/{name}", "--from"]
    session = open_terminal([*command, write(place, "a.tar", SMALL)], user=single.user)
    session.expect_exact(f"{place}/{name}: ")
    session.expect_exact(words.format(f"{place}/{name}", f"{place}/{name}"))
    session.expect(pexpect.EOF)
    assert (session.before or "").strip() == "", "it is the last line"


def test_a_target_below_a_link(single: Runner, new_place: NewPlace) -> None:
    """It is made where the link leads; one that leads to what exists is refused."""
    place = new_place(single.user)
    source = write(place, "a.tar", SMALL)
    single.user.run(["mkdir", "real"], cwd=place)
    for name, leads_to in (("link", "real"), ("new", "real/second"), ("old", "real/first")):
        os.symlink(leads_to, f"{place}/{name}")
    for target, made in (("link/first", "first"), ("new", "second")):
        done = create(single, f"{place}/{target}", source)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{place}/real/{made}: arm64\n"
    done = create(single, f"{place}/old", source)
    assert f"{place}/real/first exists already" in done.stderr
    assert set(os.listdir(f"{place}/real")) == {"first", "second"}
    assert os.readlink(f"{place}/new") == "real/second"


def test_a_target_that_is_a_mount_point(root: Runner, new_place: NewPlace) -> None:
    place = new_place(root.user)
    source = write(place, "a.tar", SMALL)
    os.mkdir(f"{place}/disk")
    script = 'mount -t tmpfs none "$1" && shift && "$@"'
    for target, status in (("disk", 125), ("disk/tree", 0)):
        command = (*root.xbuild, "create", f"{place}/{target}", "--from", source)
        done = root.user.run(["unshare", "-m", "sh", "-c", script, "sh", f"{place}/disk", *command])
        assert done.returncode == status, done.stderr
        assert ("it is a mount point: name a directory in it" in done.stderr) == (status != 0)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("debain:bookworm", (), "'debain:bookworm'\nhint: did you mean debian:bookworm?"),
        ("Debian:sid", (), "did you mean debian:sid?"),
        ("tree", (), "Unknown source 'tree'"),
        ("file:///a.tar", (), "https:// and http:// are known"),
        ("debian:sid-backports", (), "but what is added to one\nhint: --from debian:sid; "),
        ("rootfs:FULL", (), "Unknown source 'rootfs:FULL'"),
        ("/usr", (), "/usr is a directory\nhint: xbuild pack makes an archive"),
        ("./a.tar", ("--arch", "arm64"), "--arch does not go with ./a.tar"),
        ("./a.tar", ("--sha256", "abc"), "no SHA-256 digest"),
    ],
)
def test_wrong_words(
    source: str, options: tuple[str, ...], words: str, single: Runner, new_place: NewPlace
) -> None:
    place = new_place(single.user)
    nameless = create(single, "", source, *options)
    assert nameless.returncode == 2
    done = create(single, f"{place}/tree", source, *options)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert os.listdir(place) == []


def test_an_archive_without_programs(single: Runner, new_place: NewPlace) -> None:
    place = new_place(single.user)
    layout: Layout = {"rootfs/bin/sh": b"", "rootfs/etc": None, "rootfs/bin/ls": Link("sh")}
    done = create(single, f"{place}/tree", write(place, "a.tar", make_tar(layout)))
    assert done.returncode == 0
    assert any("no program of any architecture" in note for note in notes(done))


def test_empty_rootfs(runner: Runner, new_place: NewPlace, busybox: Callable[..., str]) -> None:
    require("mirror", bool(busybox("armhf")), "not reached")
    tree = f"{new_place(runner.user)}/tree"
    home = runner.user.environment(XDG_CACHE_HOME=os.path.dirname(tree))
    words = ("create", tree, "--from", "rootfs:EMPTY", "--arch", "armhf")
    done = runner.command(*words, env=home, timeout_s=WORK_S)
    require("mirror", "mirror" not in done.stderr, done.stderr)
    assert done.returncode == 0, done.stderr
    assert runner.output(tree, "--", "uname", "-m") == "armv7l\n"
    assert runner.output(tree, "--", "stat", "-c", "%u %a", "/root") == "0 700\n"
