from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crafted import Fifo, Layout, Link, make_tree
from xbuild.errors import SymlinkLoop, TargetError, TargetNotFound
from xbuild.record import GuestPath, HostPath
from xbuild.tree.resolve import DirectoryReader

Require = Callable[[str, bool, str], None]

LAYOUT: Layout = {
    "bin/busybox": b"busybox",
    "bin/sh": Link("/bin/busybox"),
    "bin/up": Link("../../../../../../bin/busybox"),
    "bin/away": Link("/etc/hostname"),
    "bin/self": Link("self"),
    "bin/one": Link("two"),
    "bin/two": Link("./one"),
    "usr/bin": Link("../bin"),
    "empty": None,
    "queue": Fifo,
}


@pytest.fixture
def reader(tmp_path: Path) -> DirectoryReader:
    return DirectoryReader(make_tree(tmp_path / "tree", LAYOUT))


def path(text: str) -> GuestPath:
    return GuestPath(text)


@pytest.mark.parametrize(
    "name",
    [
        "/bin/busybox",
        "bin/busybox",
        "/bin/sh",
        "/bin/up",
        "/usr/bin/sh",
        "//usr/./bin//sh",
        "/usr/bin/../bin/busybox",
        "/../../bin/sh",
    ],
)
def test_every_way_to_a_file_leads_to_it_inside_the_root(
    reader: DirectoryReader, name: str
) -> None:
    assert reader.resolve(path(name)) == "/bin/busybox"
    assert reader.read(path(name), 100) == b"busybox"


def test_an_absolute_symlink_does_not_reach_the_host(reader: DirectoryReader) -> None:
    assert os.path.exists("/etc/hostname")
    assert reader.lookup(path("/bin/away")) is None
    with pytest.raises(TargetNotFound, match="/bin/away"):
        reader.read(path("/bin/away"), 10)


@pytest.mark.parametrize("name", ["/bin/self", "/bin/one", "/bin/one/below"])
def test_a_symlink_loop_is_named(reader: DirectoryReader, name: str) -> None:
    with pytest.raises(SymlinkLoop, match="loop"):
        reader.resolve(path(name))
    with pytest.raises(SymlinkLoop):
        reader.lookup(path(name))


def test_forty_symlinks_are_followed_and_forty_one_are_not(tmp_path: Path) -> None:
    layout: Layout = {f"link{n}": Link(f"link{n + 1}") for n in range(1, 42)}
    reader = DirectoryReader(make_tree(tmp_path, layout | {"link42": b"end"}))
    assert reader.read(path("link2"), 10) == b"end"
    with pytest.raises(SymlinkLoop):
        reader.read(path("link1"), 10)


@pytest.mark.parametrize("name", ["/absent", "/bin/busybox/below", "/nul\0", "/" + "x" * 300])
def test_what_is_not_there_is_none(reader: DirectoryReader, name: str) -> None:
    assert reader.lookup(path(name)) is None
    with pytest.raises(TargetNotFound):
        reader.resolve(path(name))


def test_an_entry_says_where_it_is_and_what(reader: DirectoryReader) -> None:
    entry = reader.lookup(path("/usr/bin/sh"))
    assert entry is not None
    assert entry.path == "/bin/busybox"
    assert stat.S_ISREG(entry.mode)
    assert (entry.size, entry.uid, entry.gid) == (7, os.getuid(), os.getgid())


def test_the_root_is_a_directory(reader: DirectoryReader) -> None:
    entry = reader.lookup(path("/"))
    assert entry is not None
    assert entry.path == "/"
    assert stat.S_ISDIR(entry.mode)
    assert reader.listdir(path("/")) == ("bin", "empty", "queue", "usr")


def test_a_fifo_is_refused_without_waiting(reader: DirectoryReader) -> None:
    with pytest.raises(TargetError, match="it is a FIFO"):
        reader.read(path("/queue"), 10)
    with pytest.raises(TargetError, match="it is a FIFO"):
        reader.open(path("/queue"))


def test_a_socket_and_a_directory_are_no_files(reader: DirectoryReader) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{reader.root}/socket")
        with pytest.raises(TargetError, match="it is a socket"):
            reader.read(path("/socket"), 10)
    with pytest.raises(TargetError, match="it is a directory"):
        reader.read(path("/bin"), 10)
    with pytest.raises(TargetError, match="it is a regular file"):
        reader.listdir(path("/bin/sh"))


def test_a_device_node_is_never_opened(reader: DirectoryReader, require: Require) -> None:
    try:
        os.mknod(f"{reader.root}/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        require("mknod", False, "device nodes can be made by root alone")
    with pytest.raises(TargetError, match="it is a character device"):
        reader.read(path("/null"), 10)


def test_listing_stops_at_its_limit(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").touch()
    with DirectoryReader(HostPath(str(tmp_path))) as reader:
        assert len(reader.listdir(path("/"), 5)) == 5
        assert reader.listdir(path("/"))[:3] == ("00", "01", "02")


def test_names_that_are_no_text_are_names(tmp_path: Path) -> None:
    name = os.fsdecode(b"line\nbreak\xff")
    with DirectoryReader(make_tree(tmp_path, {name: b"content"})) as reader:
        assert reader.listdir(path("/")) == (name,)
        assert reader.read(path(name), 100) == b"content"


def test_reading_stops_at_its_limit(reader: DirectoryReader) -> None:
    assert reader.read(path("/bin/sh"), 4) == b"busy"
    assert reader.look(path("/bin/sh"), 4) == ("/bin/busybox", b"busy")


def test_present_names_dangling_symlinks_too(reader: DirectoryReader) -> None:
    names = ("sh", "absent", "away")
    assert reader.present(path("/usr/bin"), names) == ("sh", "away")
    assert reader.present(path("/absent"), names) == ()


def test_what_may_not_be_read_says_so(reader: DirectoryReader, require: Require) -> None:
    os.chmod(f"{reader.root}/bin/busybox", 0)
    require("root", os.geteuid() == 0, "giving up root shows what root may not read")
    os.seteuid(65534)
    try:
        with pytest.raises(TargetError, match="Permission denied") as caught:
            reader.read(path("/bin/sh"), 10)
    finally:
        os.seteuid(0)
    assert "owner" in caught.value.hint


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with DirectoryReader(make_tree(tmp_path / "tree", LAYOUT)) as reader:
        for name in ("/bin/sh", "/bin/self", "/absent", "/queue", "/bin", "/bin/busybox/x"):
            for act in (reader.resolve, reader.lookup, reader.listdir):
                with suppress(TargetError):
                    act(path(name))
            with suppress(TargetError), reader.open(path(name)) as file:
                file.read(1)
    assert os.listdir("/proc/self/fd") == before


def test_a_missing_root_and_a_file_as_root_are_named(tmp_path: Path) -> None:
    with pytest.raises(TargetNotFound, match="absent"):
        DirectoryReader(HostPath(f"{tmp_path}/absent"))
    (tmp_path / "file").touch()
    with pytest.raises(TargetError, match="file"):
        DirectoryReader(HostPath(f"{tmp_path}/file"))


DIRECTORIES = ("", "a", "a/b", "c")
LINKS = tuple(f"{d}/l{n}" for n, d in enumerate(DIRECTORIES * 2))
components = st.sampled_from(("a", "b", "c", "f", "..", ".", "", *(f"l{n}" for n in range(8))))
paths = st.builds(
    lambda root, names: root + "/".join(names),
    st.sampled_from(("", "/")),
    st.lists(components, min_size=1, max_size=5),
).filter(bool)


@given(targets=st.tuples(*[paths] * len(LINKS)), queries=st.lists(paths, min_size=20, max_size=20))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_resolution_agrees_with_the_kernels_after_chroot(
    targets: tuple[str, ...],
    queries: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    require: Require,
) -> None:
    require("root", os.geteuid() == 0, "chroot(2) is for root")
    layout: Layout = {f"{d}/f".lstrip("/"): b"" for d in DIRECTORIES}
    layout |= {name.lstrip("/"): Link(t) for name, t in zip(LINKS, targets, strict=True)}
    root = make_tree(tmp_path_factory.mktemp("tree"), layout)
    with DirectoryReader(root) as reader:
        ours = [inode_or_errno(reader, query) for query in queries]
    assert ours == inodes_after_chroot(root, queries)


def inode_or_errno(reader: DirectoryReader, query: str) -> int:
    try:
        found = reader.resolve(path("/" + query))
    except SymlinkLoop:
        return -errno.ELOOP
    except TargetNotFound:
        return -errno.ENOENT
    return os.lstat(str(reader.root) + found).st_ino


def inodes_after_chroot(root: str, queries: list[str]) -> list[int]:
    """Ask the kernel, in a child process, for the inode of each path or the error's number."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.chroot(root)
        for query in queries:
            try:
                number = os.stat("/" + query).st_ino
            except OSError as error:
                number = -errno.ENOENT if error.errno == errno.ENOTDIR else -(error.errno or 0)
            os.write(writable, struct.pack("q", number))
        os._exit(0)
    os.close(writable)
    with open(readable, "rb") as answers:
        numbers = [number for (number,) in struct.iter_unpack("q", answers.read())]
    os.waitpid(child, 0)
    return numbers


@pytest.mark.parametrize(
    "name", ["/bin/sh", "/usr/bin/up", "/usr/bin/../bin/busybox", "/bin/away", "/bin/one", "/queue"]
)
def test_places_that_are_remembered_lead_where_they_led(tmp_path: Path, name: str) -> None:
    def found(reader: DirectoryReader) -> object:
        try:
            return reader.look(path(name), 100)
        except TargetError as error:
            return type(error), error.message

    root = make_tree(tmp_path / "tree", LAYOUT)
    with DirectoryReader(root) as forgetful, DirectoryReader(root) as reader:
        reader.remember_places()
        expected = found(forgetful)
        assert [found(reader), found(reader)] == [expected, expected]


def test_remembering_holds_few_descriptors_and_gives_them_back(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {f"a/{n}/{n}/file": b"x" for n in range(100)})
    before = os.listdir("/proc/self/fd")
    with DirectoryReader(root) as reader:
        reader.remember_places()
        for number in range(100):
            assert reader.read(path(f"/a/{number}/{number}/../{number}/file"), 1) == b"x"
        assert len(os.listdir("/proc/self/fd")) < len(before) + 40
    assert os.listdir("/proc/self/fd") == before
