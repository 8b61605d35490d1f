"""Sets of native tools: made from a tree's distribution, kept whole, refused when damaged.

On a tree without compilers, whose set is small and soon proven; compilers have tests of their own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.capability import require
from tests.native_trees import know_programs_of
from tests.runs import Runner
from tests.trees import TreeStore, tree_hash
from xbuild.record import HostPath
from xbuild.source.cache import cache_directory

NATIVE = re.compile(r"ELF/run/xbuild/native/(usr/)?bin/readlink\naarch64\n")


class Cache:
    """A cache of native tools of its own, with the packages that other tests downloaded."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.directory = f"{home}/xbuild/native"
        self.environment = {**os.environ, "XDG_CACHE_HOME": home}

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "xbuild", "native", *words]

    def xbuild(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), env=self.environment, capture_output=True, text=True, **options
        )

    def prepare(self, tree: HostPath, *words: str) -> str:
        done = self.xbuild("prepare", *words, tree)
        unavailable = "mirror" in done.stderr and done.returncode == 125
        require("mirror", not unavailable, done.stderr.strip())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sets(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(f"{self.directory}/sets")
        return []

    def listed(self) -> dict[str, Any]:
        (found,) = json.loads(self.xbuild("list", "--json", check=True).stdout)["sets"]
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def made(reachable_directory: HostPath) -> Iterator[Cache]:
    """A cache to copy from."""
    with new_cache(f"{reachable_directory}/native-cache") as cache:
        yield cache


@pytest.fixture(scope="module")
def made_small(reachable_directory: HostPath) -> Iterator[Cache]:
    """A cache for sets that are soon proven."""
    with new_cache(f"{reachable_directory}/native-cache-small") as cache:
        yield cache


@contextlib.contextmanager
def new_cache(home: str) -> Iterator[Cache]:
    """Make a cache whose packages are kept from session to session."""
    os.makedirs(f"{home}/xbuild/native")
    kept = f"{cache_directory()}/test-native-downloads"
    os.makedirs(kept, exist_ok=True)
    os.symlink(kept, f"{home}/xbuild/native/downloads")
    yield Cache(home)
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def small_tree(tree_store: TreeStore) -> Iterator[HostPath]:
    """A tree of whose programs dpkg knows few: their set is proven in a fraction of the time."""
    tree = tree_store.fresh("arm64")
    know_programs_of(tree, "dash", "grep", "sed")
    yield tree
    shutil.rmtree(os.path.dirname(tree))


@pytest.fixture
def tree(root: Runner) -> HostPath:
    return root.tree("arm64")


@pytest.fixture
def cache(made: Cache, tree: HostPath) -> Cache:
    """The cache with a sound set for ``tree``, whatever was done to it before."""
    sets, saved = f"{made.directory}/sets", f"{made.home}/saved"
    if not os.path.exists(saved):
        made.prepare(tree)
        shutil.copytree(sets, saved)
    shutil.rmtree(sets, ignore_errors=True)
    shutil.copytree(saved, sets)
    return made


def test_a_set_is_made_and_the_tree_left_as_it_was(made: Cache, tree: HostPath) -> None:
    before = tree_hash(tree)
    first = made.prepare(tree)
    assert "proven identical" in first
    assert made.prepare(tree) == first.rstrip("\n") + " (was there already)\n"
    assert tree_hash(tree) == before


def test_the_list_says_what_was_proven(cache: Cache) -> None:
    found = cache.listed()
    assert found["architecture"] == "aarch64"
    assert found["damage"] is None
    tools = {tool["path"]: tool for tool in found["tools"]}
    assert tools["/usr/bin/sed"]["level"] == "exact"
    assert tools["/usr/bin/sed"]["verdict"] == "identical"
    assert tools["/usr/bin/uname"]["level"] == "none"
    assert tools["/usr/bin/numfmt"]["level"] == "fast"
    assert all(tool["reason"] for tool in found["tools"] if tool["level"] != "exact")
    shown = cache.xbuild("list", "-v", check=True).stdout
    assert found["digest"][:12] in shown
    assert "/usr/bin/uname  untested: it tells the machine" in shown


def test_native_programs_run_in_the_tree(cache: Cache, tree: HostPath, root: Runner) -> None:
    script = "head -c4 /proc/self/exe | tail -c3; readlink /proc/self/exe; uname -m"
    environment = root.user.environment(XDG_CACHE_HOME=cache.home)
    done = root.run("--native", tree, "--", "/bin/sh", "-ec", script, env=environment)
    assert NATIVE.fullmatch(done.stdout), done.stdout + done.stderr


def test_a_bash_says_the_tree_s_machine(cache: Cache, tree: HostPath, root: Runner) -> None:
    script = "echo $HOSTTYPE $MACHTYPE $OSTYPE ${BASH_VERSINFO[5]}; readlink /proc/$$/exe; exit"
    environment = root.user.environment(XDG_CACHE_HOME=cache.home)
    bash = (tree, "--", "/bin/bash", "-c", script)
    emulated = root.run(*bash, env=environment).stdout.splitlines()
    native = root.run("--native", *bash, env=environment).stdout.splitlines()
    assert native[0] == emulated[0]
    assert native[1].startswith("/run/xbuild/native/")
    assert not emulated[1].startswith("/run/xbuild/native/")


def test_a_damaged_set_is_noticed_and_made_anew(
    made_small: Cache, small_tree: HostPath, root: Runner
) -> None:
    made_small.prepare(small_tree)
    program = f"{made_small.listed()['directory']}/root/lib/libc.so.6"
    with open(program, "r+b") as file:
        file.seek(4096)
        file.write(b"damage")
    assert "libc.so.6" in made_small.listed()["damage"]
    environment = root.user.environment(XDG_CACHE_HOME=made_small.home)
    refused = root.run("--native", small_tree, "--", "true", env=environment)
    assert refused.returncode == 125
    assert "damaged" in refused.stderr
    assert "was there already" not in made_small.prepare(small_tree)
    assert made_small.listed()["damage"] is None


def test_a_set_with_a_file_too_few_is_damaged(cache: Cache) -> None:
    os.unlink(f"{cache.listed()['directory']}/root/ld.so")
    assert "ld.so is missing" in cache.listed()["damage"]
    done = cache.xbuild("prune", check=True)
    assert "ld.so is missing" in done.stderr
    assert cache.sets() == []


def test_what_was_interrupted_is_never_seen(made_small: Cache, small_tree: HostPath) -> None:
    shutil.rmtree(f"{made_small.directory}/sets", ignore_errors=True)
    with subprocess.Popen(
        made_small.argv("prepare", "--again", small_tree),
        env=made_small.environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "cases by the tree's own programs" in line:
                break
        os.killpg(process.pid, signal.SIGKILL)
    assert any(name.startswith(".new-") for name in made_small.sets())
    assert not json.loads(made_small.xbuild("list", "--json").stdout)["unreadable"]
    made_small.prepare(small_tree)
    assert not any(name.startswith(".") for name in made_small.sets())
    assert not [name for name in os.listdir(made_small.directory) if name.startswith("work-")]


def test_two_at_once_make_one_set(made_small: Cache, small_tree: HostPath) -> None:
    for name in made_small.sets():
        shutil.rmtree(f"{made_small.directory}/sets/{name}")
    both = [
        subprocess.Popen(
            made_small.argv("prepare", small_tree),
            env=made_small.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate() for process in both]
    require("mirror", not any("does not serve" in err for _, err in said), said[0][1])
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("was there already" in out for out, _ in said) == 1
    assert sum("waiting for another process" in err for _, err in said) == 1
    assert len(made_small.sets()) == 1


def test_a_full_disk_leaves_no_set(cache: Cache, tree: HostPath, tmp_path: Any) -> None:
    """The cache is a tmpfs in a mount namespace of the test's own, too small for the set."""
    small = f"{tmp_path}/small"
    os.mkdir(small)
    script = (
        'mount -t tmpfs -o size=12m tmpfs "$1" && mkdir -p "$1/xbuild/native" &&'
        ' ln -s "$2" "$1/xbuild/native/downloads" && XDG_CACHE_HOME=$1 "$3" -m xbuild native'
        ' prepare "$4"; status=$?; ls -A "$1/xbuild/native/sets"; exit $status'
    )
    downloads = os.path.realpath(f"{cache.directory}/downloads")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", small, downloads, sys.executable, tree],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 125, done.stderr
    require("mirror", "does not serve" not in done.stderr, done.stderr)
    assert os.strerror(errno.ENOSPC) in done.stderr
    assert "make room" in done.stderr
    assert done.stdout == ""


def test_a_changed_program_is_another_recipe(cache: Cache, root: Runner) -> None:
    """A tree whose sed was replaced has no use for the native one, and is told so."""
    changed = root.tree("arm64")
    work = os.path.dirname(os.path.realpath(cache.home)) + "/changed"
    subprocess.run(["cp", "-a", "--reflink=auto", changed, work], check=True)
    try:
        with open(f"{work}/usr/bin/sed", "ab") as file:
            file.write(b"upgraded")
        environment = root.user.environment(XDG_CACHE_HOME=cache.home)
        done = root.run("--native", work, "--", "readlink", "/proc/self/exe", env=environment)
        assert "sed" in done.stderr
        assert done.stdout.startswith("/run/xbuild/native/")
        done = root.run("--native", work, "--", "/bin/sed", "--version", env=environment)
        assert "GNU sed" in done.stdout
    finally:
        shutil.rmtree(work)


def test_sets_are_removed_by_the_beginning_of_their_names(cache: Cache) -> None:
    digest = cache.listed()["digest"]
    with open(f"{cache.directory}/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = cache.xbuild("remove", digest[:8], "0000000000000000", timeout=300)
    assert missing.returncode == 125
    assert "waiting" not in missing.stderr
    assert cache.sets() == [digest]
    assert digest in cache.xbuild("remove", digest[:8], check=True).stdout
    assert cache.sets() == []
    listed = cache.xbuild("list", check=True)
    assert (listed.stdout, "xbuild native prepare" in listed.stderr) == ("", True)


def test_a_tree_of_other_revisions_is_refused_and_told_what_differs(
    made: Cache, root: Runner, tmp_path: Any
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(root.tree("arm64"), tree, symlinks=True)
    status = tree / "var/lib/dpkg/status"
    status.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+local1", status.read_text()))
    before = made.sets()
    done = made.xbuild("prepare", str(tree))
    require("mirror", "does not serve" not in done.stderr, done.stderr)
    assert done.returncode == 125
    assert re.search(r"sed is \S+, not \S+\+local1", done.stderr)
    assert made.sets() == before


def test_a_mirror_that_cannot_be_reached_leaves_no_set(made: Cache, root: Runner) -> None:
    environment = {**made.environment, "XBUILD_DEBIAN_MIRROR": "http://127.0.0.1:9/debian"}
    before = made.sets()
    done = subprocess.run(
        made.argv("prepare", "--again", root.tree("arm64")),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 125
    assert "Cannot reach the Debian mirror" in done.stderr
    assert made.sets() == before


@pytest.mark.parametrize("distribution", ["ID=arch\nNAME=Arch", "ID=debian\nNAME=Debian"])
def test_a_tree_of_unknown_origin_is_refused(
    made: Cache, root: Runner, tmp_path: Any, distribution: str
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(root.tree("arm64"), tree, symlinks=True)
    (tree / "usr/lib/os-release").unlink()
    (tree / "usr/lib/os-release").write_text(distribution + "\n")
    done = made.xbuild("prepare", str(tree))
    assert done.returncode == 125
    assert "--provider" in done.stderr
    shutil.rmtree(tree / "var/lib/dpkg")
    done = made.xbuild("prepare", str(tree))
    assert done.returncode == 125
    assert "no dpkg database" in done.stderr


def test_an_image_is_refused_and_told_how_to_have_a_set_for_it(made: Cache, tmp_path: Any) -> None:
    image = tmp_path / "card.img"
    image.write_bytes(b"\0" * 1024)
    done = made.xbuild("prepare", str(image))
    assert done.returncode == 125
    assert f"xbuild run --read-only {image} -- tar" in done.stderr


def test_a_tree_of_this_host_needs_no_tools(made: Cache) -> None:
    done = made.xbuild("prepare", "/")
    assert done.returncode == 125
    assert "own architecture" in done.stderr
