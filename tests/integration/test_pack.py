"""``xbuild pack`` and back: the same tree, the same bytes, for whoever does it."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.test_create_tarball import create, write
from tests.patience import WORK_S
from tests.runs import Runner
from tests.users import User
from xbuild.record import HostPath
from xbuild.sandbox.mapping import identities_of_new_tree
from xbuild.source.pack import pack_tree
from xbuild.source.unpack import unpack_archive

NewPlace = Callable[[User], HostPath]
MIB = 1 << 20


def rich_archive(programs: bytes) -> bytes:
    """Return an archive with all that a tree can have, whose owners are several."""
    with io.BytesIO() as output:
        with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:

            def add(name: str, content: bytes = b"", **attributes: object) -> None:
                member = tarfile.TarInfo(name)
                member.size, member.mode, member.mtime = len(content), 0o644, 1234567890.5
                for key, value in attributes.items():
                    setattr(member, key, value)
                archive.addfile(member, io.BytesIO(content))

            for name in ("bin", "etc", "var"):
                add(name, type=tarfile.DIRTYPE, mode=0o755)
            add("bin/busybox", programs, mode=0o755)
            add("bin/sh", type=tarfile.SYMTYPE, linkname="busybox")
            add("bin/again", type=tarfile.LNKTYPE, linkname="bin/busybox")
            add("bin/su", b"x", mode=0o4755)
            add("etc/shadow", b"x", mode=0o640, gid=42)
            add("var/mail", type=tarfile.DIRTYPE, mode=0o2775, gid=8, uid=33)
            add("var/pipe", type=tarfile.FIFOTYPE, mode=0o600)
            add("var/näme with\nnewline", b"x")
            add("etc/note", b"x", pax_headers={"SCHILY.xattr.user.note": "kept"})
            acl = "user::rw-,user:33:r--,group::r--,mask::r--,other::---"
            add("etc/acl", b"x", pax_headers={"SCHILY.acl.access": acl})
        return output.getvalue()


def listing(archive: str) -> list[str]:
    """Return what tar says of each member, its content's digest included."""
    with tarfile.open(archive) as members:
        lines = []
        for member in members:
            file = members.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(file.read()).hexdigest() if file else ""
            facts = (member.type, oct(member.mode), member.uid, member.gid, member.mtime)
            lines.append(f"{member.name} {facts} {member.linkname} {member.pax_headers} {digest}")
    return lines


def test_there_and_back(
    runner: Runner, new_place: NewPlace, busybox: Callable[[str], HostPath]
) -> None:
    place = new_place(runner.user)
    source = write(place, "a.tar", rich_archive(Path(busybox("arm64")).read_bytes()))
    assert create(runner, f"{place}/tree", source).returncode == 0
    make_hole = ["truncate", "-s", "3M", f"{place}/tree/var/holes"]
    assert runner.user.run(make_hole).returncode == 0
    done = runner.command("pack", f"{place}/tree", f"{place}/one.tar.zst", timeout_s=WORK_S)
    assert done.returncode == 0, done.stderr
    assert create(runner, f"{place}/again", f"{place}/one.tar.zst").returncode == 0
    assert os.stat(f"{place}/again/var/holes").st_blocks == 0
    runner.command("pack", f"{place}/again", f"{place}/two.tar.zst", timeout_s=WORK_S)
    one, two = (Path(f"{place}/{name}.tar.zst").read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(one) < 2 * MIB
    subprocess.run(["zstd", "-dq", f"{place}/one.tar.zst"], check=True)
    said = listing(f"{place}/one.tar")
    owners = "0, 0" if runner.kind == "plain" else "0, 42"
    assert any(f"etc/shadow (b'0', '0o640', {owners}, 1234567890.5)" in line for line in said)
    assert any("user.note': 'kept'" in line for line in said)
    assert any("user:33:r--" in line for line in said) or runner.kind == "plain"
    assert any("'0o4755'" in line for line in said)


NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1)
FILES = st.tuples(
    NAMES.filter(lambda name: name not in (".", "..") and len(name.encode()) < 200),
    st.sampled_from(("file", "directory", "link", "holes")),
    st.binary(max_size=3000),
    st.sampled_from((0o644, 0o755, 0o600, 0o4711, 0o2775, 0o1777, 0o000)),
    st.integers(0, 60_000),
    st.integers(0, 2**31),
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files=st.lists(FILES, max_size=8, unique_by=lambda each: each[0]))
def test_any_tree_comes_back(
    files: list[tuple[str, str, bytes, int, int, int]], need_root: None
) -> None:
    """As root, whatever the names, kinds, modes, owners, times and attributes."""
    identities = identities_of_new_tree()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        tree, again = HostPath(f"{place}/tree"), HostPath(f"{place}/again")
        os.mkdir(tree)
        os.mkdir(again)
        for each in files:
            _make(tree, *each)
        pack_tree(tree, HostPath(f"{place}/one.tar"), "none", identities)
        unpack_archive(HostPath(f"{place}/one.tar"), again, identities)
        assert [_facts(again, each[0]) for each in files] == [_facts(tree, e[0]) for e in files]
        pack_tree(again, HostPath(f"{place}/two.tar"), "none", identities)
        assert Path(f"{place}/one.tar").read_bytes() == Path(f"{place}/two.tar").read_bytes()


def _make(
    tree: str, name: str, kind: str, content: bytes, mode: int, owner: int, time: int
) -> None:
    path = f"{tree}/{name}"
    if kind == "link":
        os.symlink(content.hex()[:100] or "x", path)
    elif kind == "directory":
        os.mkdir(path)
    else:
        with open(path, "wb") as file:
            file.write(content)
            if kind == "holes":
                file.truncate(MIB)
        os.setxattr(path, "user.x", content[:100])
    os.chown(path, owner, owner // 2, follow_symlinks=False)
    if kind != "link":
        os.chmod(path, mode)
    os.utime(path, ns=(0, time * 1_000_000_001), follow_symlinks=False)


def _facts(tree: str, name: str) -> tuple[object, ...]:
    path = f"{tree}/{name}"
    status = os.lstat(path)
    facts = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_size)
    if stat.S_ISLNK(status.st_mode):
        return (*facts, os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        return facts[:-1]
    xattrs = {key: os.getxattr(path, key) for key in os.listxattr(path)}
    return (*facts, Path(path).read_bytes(), xattrs)


def test_times_are_not_later_than_asked_for(
    single: Runner, new_place: NewPlace, busybox: Callable[[str], HostPath]
) -> None:
    place = new_place(single.user)
    source = write(place, "a.tar", rich_archive(Path(busybox("arm64")).read_bytes()))
    assert create(single, f"{place}/tree", source).returncode == 0
    environment = single.user.environment(SOURCE_DATE_EPOCH="1000000000")
    argv = ("pack", f"{place}/tree", f"{place}/out.tar")
    assert single.command(*argv, env=environment).returncode == 0
    with tarfile.open(f"{place}/out.tar") as members:
        assert {member.mtime for member in members} == {1000000000}
    environment = single.user.environment(SOURCE_DATE_EPOCH="yesterday")
    argv = ("pack", f"{place}/tree", f"{place}/other.tar")
    done = single.command(*argv, env=environment)
    assert (done.returncode, "no number of seconds" in done.stderr) == (125, True)


def test_a_target_that_is_an_archive(
    ranged: Runner, new_place: NewPlace, busybox: Callable[[str], HostPath]
) -> None:
    """It has the owners that a container would see, and a tree made of it again as well."""
    place = new_place(ranged.user)
    source = write(place, "a.tar", rich_archive(Path(busybox("arm64")).read_bytes()))
    done = create(ranged, f"{place}/out.tar.gz", source)
    assert done.returncode == 0, done.stderr
    assert set(os.listdir(place)) == {"a.tar", "out.tar.gz"}
    assert os.stat(f"{place}/out.tar.gz").st_uid == ranged.user.uid
    with tarfile.open(f"{place}/out.tar.gz") as members:
        member = members.getmember("./etc/shadow")
        assert (member.uid, member.gid, member.uname) == (0, 42, "")


def test_what_cannot_be_packed(
    single: Runner, root: Runner, new_place: NewPlace, foreign_tree: Callable[..., HostPath]
) -> None:
    place = new_place(single.user)
    theirs = foreign_tree("arm64")
    done = single.command("pack", theirs, f"{place}/out.tar")
    assert done.returncode == 125
    assert "belongs to uid 0, not to you" in done.stderr
    done = single.command("pack", theirs, f"{place}/out.zip")
    assert (done.returncode, "no name of an archive" in done.stderr) == (2, True)
    write(place, "there.tar", b"mine")
    done = root.command("pack", theirs, f"{place}/there.tar")
    assert "exists already" in done.stderr
    assert Path(f"{place}/there.tar").read_bytes() == b"mine"
    assert os.listdir(place) == ["there.tar"]


def test_no_room_for_the_archive(
    root: Runner, new_place: NewPlace, foreign_tree: Callable[..., HostPath]
) -> None:
    place = new_place(root.user)
    script = """mount -t tmpfs -o size=1m none "$1" || exit
        "$2" pack "$3" "$1/out.tar.gz"
        status=$?
        ls -A "$1"
        exit $status"""
    argv = ["unshare", "-m", "sh", "-c", script, "sh", place, *root.xbuild, foreign_tree("arm64")]
    done = root.user.run(argv)
    assert done.returncode == 125
    assert "No space left" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("layout", ["gpt", "mbr", "rpi"])
def test_a_target_that_is_an_image(
    layout: str,
    ranged: Runner,
    root: Runner,
    new_place: NewPlace,
    busybox: Callable[[str], HostPath],
) -> None:
    """Built without root and mounts; inspected, run, and sound; owners as a container sees them."""
    place = new_place(ranged.user)
    content = rich_archive(Path(busybox("arm64")).read_bytes())
    source = write(place, "a.tar", content)
    if layout == "rpi":
        os.makedirs(f"{place}/more/boot/firmware/overlays")
        Path(f"{place}/more/boot/firmware/config.txt").write_text("arm_64bit=1\n")
        Path(f"{place}/more/boot/firmware/overlays/a.dtbo").write_bytes(b"x" * 5000)
        command = ["tar", "-C", f"{place}/more", "-rf", source, "boot"]
        subprocess.run(command, check=True)
    image = f"{place}/card.img"
    size = 512 * MIB
    done = create(ranged, image, source, "--layout", layout, "--size", "512M")
    assert done.returncode == 0, done.stderr
    assert os.path.getsize(image) == size
    assert done.stdout == f"{image}: image of 512.0 MiB\n"
    said = ranged.command("inspect", image).stdout
    assert "arm64" in said
    number = 2 if layout == "rpi" else 1
    assert f"root in {number}" in said
    seen = root.output("-x", image, "--", "sh", "-c", "cat /etc/fstab; ls -ln /etc/shadow")
    assert " / ext4 " in seen
    assert " 0        42 " in " ".join(seen.split(" "))
    offset = 260 * MIB if layout == "rpi" else 4 * MIB
    check = ["e2fsck", "-f", "-n", f"{image}?offset={offset}"]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    if layout == "rpi":
        assert "/boot/firmware vfat" in seen
        listed = subprocess.run(
            ["mdir", "-/", "-b", "-i", f"{image}@@{4 * MIB}"], capture_output=True, check=True
        )
        assert b"overlays/a.dtbo" in listed.stdout
        assert "/boot/firmware" in said


def test_an_image_that_is_too_small(single: Runner, new_place: NewPlace) -> None:
    place = new_place(single.user)
    with io.BytesIO() as output:
        with tarfile.open(fileobj=output, mode="w") as archive:
            member = tarfile.TarInfo("bin/large")
            member.size = 64 * MIB
            archive.addfile(member, io.BytesIO(os.urandom(64 * MIB)))
        source = write(place, "a.tar", output.getvalue())
    done = create(single, f"{place}/card.img", source, "--size", "48M")
    assert done.returncode == 125
    assert "does not fit into 48 MiB" in done.stderr
    assert "--size" in done.stderr
    assert os.listdir(place) == ["a.tar"]
    done = create(single, f"{place}/card.img", source, "--size", "8", "--layout", "rpi")
    assert done.returncode == 125
    assert "No tree fits into an image of 8 bytes" in done.stderr
    done = create(single, f"{place}/out.tar", source, "--size", "48M")
    assert (done.returncode, "--size and --layout are for images" in done.stderr) == (2, True)
