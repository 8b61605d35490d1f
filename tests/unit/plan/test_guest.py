"""Reading a tree for a plan: where paths lead, whom it knows."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crafted import Fifo, Layout, Link, make_tree
from tests.unit.plan.records import request
from xbuild.errors import SymlinkLoop, TargetError, TargetNotFound, UsageError
from xbuild.plan.guest import Account, Place, locate, read_guest
from xbuild.plan.request import BindRequest
from xbuild.record import GuestPath, HostPath
from xbuild.tree.resolve import DirectoryReader

_NAMES = st.sampled_from(["a", "b", "c", "d"])
_STEPS = st.lists(st.one_of(_NAMES, st.sampled_from(["..", ".", ""])), min_size=1, max_size=6)
_TARGETS = st.builds(lambda parts, lead: lead + "/".join(parts), _STEPS, st.sampled_from(["", "/"]))
_ENTRIES = st.one_of(
    st.none(), st.just(b"file"), st.builds(Link, _TARGETS.filter(bool)), st.just(Fifo)
)
_LAYOUTS = st.dictionaries(
    st.lists(_NAMES, min_size=1, max_size=3).map("/".join), _ENTRIES, max_size=8
)
_PATHS = _STEPS.map(lambda parts: "/" + "/".join(parts))


@contextmanager
def tree_of(layout: Layout) -> Iterator[HostPath]:
    """Make as much of a layout as fits together: what lies below a file or a link is left out."""
    with tempfile.TemporaryDirectory() as above:
        root = HostPath(f"{above}/tree")
        os.mkdir(root)
        for name in sorted(layout):
            parts = name.split("/")
            parents = [f"{root}/{'/'.join(parts[:n])}" for n in range(1, len(parts))]
            is_blocked = any(os.path.lexists(p) and not _is_directory(p) for p in parents)
            if not is_blocked and not os.path.lexists(f"{root}/{name}"):
                make_tree(root, {name: layout[name]})
        yield root


def _is_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


@given(_LAYOUTS, _PATHS)
@settings(max_examples=300, deadline=None)
def test_locate_stays_inside_and_knows_what_is_there(layout: Layout, path: str) -> None:
    with tree_of(layout) as root, DirectoryReader(root) as reader:
        try:
            place = locate(reader, GuestPath(path))
        except (SymlinkLoop, UsageError):
            return  # it ended, and outside is nowhere
        assert not {"..", ".", ""} & set(place.path.split("/")[1:]) or place.path == "/"
        found = os.lstat(root + place.existing)
        assert not stat.S_ISLNK(found.st_mode)
        assert stat.S_IFMT(found.st_mode) == stat.S_IFMT(place.mode)
        if place.missing:
            assert not os.path.lexists(f"{root}{place.existing.rstrip('/')}/{place.missing[0]}")


@given(_LAYOUTS, _PATHS)
@settings(max_examples=300, deadline=None)
def test_locate_agrees_with_resolution(layout: Layout, path: str) -> None:
    """What is there is where path_resolution(7) finds it, the tree being the root directory."""
    with tree_of(layout) as root, DirectoryReader(root) as reader:
        try:
            resolved = reader.resolve(GuestPath(path))
        except TargetError:
            return
        try:
            place = locate(reader, GuestPath(path))
        except UsageError:
            return  # leading dots are refused, though they would do no harm
        assert (place.path, place.missing) == (resolved, ())


@given(_LAYOUTS, _PATHS, st.sets(_NAMES, max_size=2))
@settings(max_examples=300, deadline=None)
def test_covered_places_are_seen_as_empty(layout: Layout, path: str, names: set[str]) -> None:
    """Below what the container mounts nothing of the tree's shows."""
    with tree_of(layout) as root, DirectoryReader(root) as reader:
        covered = {GuestPath(f"/{n}") for n in names if not os.path.islink(f"{root}/{n}")}
        try:
            place = locate(reader, GuestPath(path), frozenset(covered))
        except (SymlinkLoop, UsageError):
            return
        top = "/" + place.path.split("/")[1]
        assert place.covered == (top in covered)
        if place.covered:
            assert place.existing == top


FIXED: Layout = {
    "etc/passwd": b"",
    "etc/link": Link("../usr/etc"),
    "usr/etc/file": b"",
    "lib": Link("usr/lib"),
    "usr/lib": None,
    "dangling": Link("/run/x/y"),
    "out": Link("../../../../etc"),
    "loop": Link("loop"),
    "loops": Link("loops/more"),
    "fifo": Fifo,
}


@pytest.mark.parametrize(
    ("path", "existing", "missing"),
    [
        ("/", "/", ()),
        ("//etc//./passwd/", "/etc/passwd", ()),
        ("/etc/link/file", "/usr/etc/file", ()),
        ("/lib/../etc/file", "/usr/etc/file", ()),
        ("/out/passwd", "/etc/passwd", ()),
        ("/etc/new/deep", "/etc", ("new", "deep")),
        ("/etc/new/../passwd", "/etc/passwd", ()),
        ("/etc/new/../../lib/x", "/usr/lib", ("x",)),
        ("/etc/passwd/x", "/etc/passwd", ("x",)),
        ("/etc/passwd/..", "/etc", ()),
        ("/dangling", "/run", ("x", "y")),
        ("/dangling/z", "/run", ("x", "y", "z")),
        ("/run/../etc/passwd", "/etc/passwd", ()),
        ("/run/a/../b", "/run", ("b",)),
    ],
)
def test_locate(
    tmp_path: os.PathLike[str], path: str, existing: str, missing: tuple[str, ...]
) -> None:
    with DirectoryReader(make_tree(tmp_path, FIXED)) as reader:
        place = locate(reader, GuestPath(path), frozenset((GuestPath("/run"),)))
        assert (place.existing, place.missing) == (existing, missing)
        assert place.covered == (existing == "/run")
        is_directory = existing != "/etc/passwd" and not existing.endswith("file")
        assert stat.S_ISDIR(place.mode) == is_directory


@pytest.mark.parametrize("path", ["/loop", "/loops/x", "/loop/../etc"])
def test_loops_end(tmp_path: os.PathLike[str], path: str) -> None:
    with DirectoryReader(make_tree(tmp_path, FIXED)) as reader, pytest.raises(SymlinkLoop):
        locate(reader, GuestPath(path))


@pytest.mark.parametrize("path", ["relative", "", "/..", "/../etc", "/etc/../../x", "/./../x"])
def test_paths_out_of_the_tree_are_refused(tmp_path: os.PathLike[str], path: str) -> None:
    with DirectoryReader(make_tree(tmp_path, FIXED)) as reader, pytest.raises(UsageError):
        locate(reader, GuestPath(path))


def test_place_joins_what_is_there_and_what_is_not() -> None:
    assert Place(GuestPath("/"), ("a", "b"), 0).path == "/a/b"
    assert Place(GuestPath("/etc"), (), 0).path == "/etc"
    assert Place(GuestPath("/"), (), 0).path == "/"


PASSWD = b"""\
root:x:0:0:root:/root:/bin/bash
joe:x:1000:100:Joe:/home/joe:/bin/zsh
rel:x:1001:100::home:
climb:x:1002:100::/../..:
short:x:1003
neg:x:-1:0::/:
nul\0:x:0:0::/:
nobody:*:65534:65534::/nonexistent:/usr/sbin/nologin
"""
GROUP = b"users:x:100:\nwheel:x:10:joe,root\nodd:x:x:joe\nadm:x:4:joel\n"


def account(root: HostPath, user: str | None) -> Account:
    with DirectoryReader(root) as reader:
        return read_guest(reader, request(user=user)).account


@pytest.mark.parametrize(
    ("user", "ids", "groups", "home"),
    [
        (None, (0, 0), (), "/root"),
        ("root", (0, 0), (), "/root"),
        ("0", (0, 0), (), "/root"),
        ("joe", (1000, 100), (100, 10), "/home/joe"),
        ("1000", (1000, 100), (100, 10), "/home/joe"),
        ("joe:wheel", (1000, 10), (10,), "/home/joe"),
        ("joe:7", (1000, 7), (7, 10), "/home/joe"),
        ("rel", (1001, 100), (100,), "/"),
        ("climb", (1002, 100), (100,), "/"),
        ("4321", (4321, 0), (0,), "/"),
        ("4321:wheel", (4321, 10), (10,), "/"),
        ("root:wheel", (0, 10), (10,), "/root"),
    ],
)
def test_accounts(
    tmp_path: os.PathLike[str],
    user: str | None,
    ids: tuple[int, int],
    groups: tuple[int, ...],
    home: str,
) -> None:
    root = make_tree(tmp_path, {"etc/passwd": PASSWD, "etc/group": GROUP})
    found = account(root, user)
    assert ((found.uid, found.gid), found.groups, found.home) == (ids, groups, home)


@pytest.mark.parametrize("user", ["jo", "short", "neg", "-1", "\u00b2", "", ":wheel", "joe:nope"])
def test_unknown_accounts(tmp_path: os.PathLike[str], user: str) -> None:
    root = make_tree(tmp_path, {"etc/passwd": PASSWD, "etc/group": GROUP})
    with pytest.raises(UsageError, match="The tree has no"):
        account(root, user)


def test_root_is_known_without_passwd(tmp_path: os.PathLike[str]) -> None:
    root = make_tree(tmp_path, {"bin": None})
    assert account(root, None).uid == 0
    assert account(root, "7").gid == 0


def test_what_a_run_can_do_without_is_no_obstacle(tmp_path: os.PathLike[str]) -> None:
    layout: Layout = {"etc/resolv.conf": Link("resolv.conf"), "etc/hosts": Link("/nowhere")}
    with DirectoryReader(make_tree(tmp_path, layout)) as reader:
        found = read_guest(reader, request())
    assert found.resolv_conf is None
    assert found.hosts is not None
    assert found.hosts.missing == ("nowhere",)
    assert not found.home_exists


def test_a_home_may_come_from_outside(tmp_path: os.PathLike[str]) -> None:
    wanted = request(binds=(BindRequest(HostPath("/etc"), GuestPath("/root/")),))
    with DirectoryReader(make_tree(tmp_path, {"bin": None})) as reader:
        assert read_guest(reader, wanted).home_exists
        assert not read_guest(reader, request()).home_exists


def test_sources_are_looked_at(tmp_path: os.PathLike[str]) -> None:
    with DirectoryReader(make_tree(tmp_path, {"bin": None})) as reader:
        wanted = BindRequest(HostPath("/dev/null"), GuestPath("/x"))
        (mode,) = read_guest(reader, request(binds=(wanted,))).source_modes
        assert stat.S_ISCHR(mode)
        missing = BindRequest(HostPath("/no/such"), GuestPath("/x"))
        with pytest.raises(TargetNotFound, match="Cannot bind /no/such"):
            read_guest(reader, request(binds=(missing,)))
