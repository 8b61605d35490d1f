"""ccache and distcc before a tree's compilers: hits, misses, servers that differ or die."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.native_trees import CACHE_HOME, CompilerTree, write_files
from tests.networks import Network, await_listener, network_of
from tests.patience import WORK_S
from tests.runs import Runner, notes
from xbuild.native.distcc import PORT
from xbuild.record import HostPath, replace
from xbuild.toolset.manifest import compute_digest, read_toolset, write_manifest

SOURCES = {
    f"part{n}.c": f"struct s {{ int a[{n}]; }}; int f{n}(struct s *s) {{ return s->a[{n} - 1]; }}\n"
    for n in range(1, 13)
} | {
    f"more{n}.cc": f"template <int N> int g() {{ return N; }} int h{n}() {{ return g<{n}>(); }}\n"
    for n in range(1, 4)
}
MAKEFILE = (
    "OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c)) $(patsubst %.cc,%.o,$(wildcard *.cc))\n"
    "all: $(OBJECTS)\n"
    "%.o: %.c ; @$(CC) -g -O2 -c $< -o $@\n"
    "%.o: %.cc ; @$(CXX) -g -O2 -c $< -o $@\n"
)
FILES = {**SOURCES, "Makefile": MAKEFILE}


@pytest.fixture
def tree(compiler_path: HostPath, root: Runner) -> CompilerTree:
    return CompilerTree(compiler_path, root)


@pytest.fixture
def work(reachable_directory: HostPath) -> Iterator[HostPath]:
    directory = HostPath(f"{reachable_directory}/frontends-work")
    os.makedirs(directory)
    yield directory
    shutil.rmtree(directory)


def objects_in(place: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(place).glob("*.o"))}


@pytest.fixture
def built_here(tree: CompilerTree, work: HostPath) -> dict[str, bytes]:
    """The objects as native compilers make them, without anything before them."""
    place = write_files(f"{work}/here", FILES)
    done = tree.run(place, "make -s", "--native")
    assert done.returncode == 0, done.stderr
    assert len(objects_in(place)) == len(SOURCES)
    return objects_in(place)


COMPILE = "gcc -g -O2 -c part1.c -o part1.o && ccache --print-stats"


def statistics(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}


def hits_and_misses(text: str) -> tuple[int, int]:
    found = statistics(text)
    hits = found["direct_cache_hit"] + found["preprocessed_cache_hit"]
    return hits, found["cache_miss"]


def test_ccache_hits_what_it_has_compiled(
    tree: CompilerTree, work: HostPath, built_here: dict[str, bytes]
) -> None:
    store = f"--ccache={work}/store"
    for expected in ((0, 1), (1, 1), (2, 1)):
        place = write_files(f"{work}/cached", FILES)
        done = tree.run(place, COMPILE, store)
        assert done.returncode == 0, done.stderr
        assert hits_and_misses(done.stdout) == expected
        assert objects_in(place) == {"part1.o": built_here["part1.o"]}


def test_ccache_misses_after_a_compiler_change(
    tree: CompilerTree, work: HostPath, place: HostPath
) -> None:
    """cc1 of the same name, size of driver and version, and yet another one."""
    changed = HostPath(f"{place}/changed")
    subprocess.run(["cp", "-a", tree.path, changed], check=True)
    try:
        (cc1,) = Path(changed).glob("usr/libexec/gcc/*/*/cc1")
        with cc1.open("ab") as file:
            file.write(b"\0")
        files = write_files(f"{work}/files", FILES)
        store = f"--ccache={work}/store"
        assert hits_and_misses(tree.run(files, COMPILE, store).stdout) == (0, 1)
        other = copy.copy(tree)
        other.path = changed
        assert hits_and_misses(other.run(files, COMPILE, store).stdout) == (0, 2)
        assert hits_and_misses(tree.run(files, COMPILE, store).stdout) == (1, 2)
    finally:
        shutil.rmtree(changed)


def test_ccache_misses_when_the_compiler_is_replaced_meanwhile(
    tree: CompilerTree, work: HostPath
) -> None:
    files = write_files(f"{work}/files", FILES)
    replace_it = "p=$(gcc -print-prog-name=cc1); cp $p new; printf x >>new; mv new $p"
    script = f"gcc -g -O2 -c part1.c -o part1.o; {replace_it}; {COMPILE}"
    done = tree.run(files, script, f"--ccache={work}/store", "--ephemeral")
    assert hits_and_misses(done.stdout) == (0, 2), done.stderr


def test_ccache_stands_before_the_tree_s_own_names(tree: CompilerTree, work: HostPath) -> None:
    store = f"--ccache={work}/store"
    done = tree.run(work, "for name in gcc cc g++; do command -v $name; done; gcc --version", store)
    assert done.stdout.splitlines()[:3] == [
        f"/run/xbuild/ccache/bin/{n}" for n in ("gcc", "cc", "g++")
    ]
    assert "14.2.0" in done.stdout


@contextmanager
def serving(tree: CompilerTree, network: Network, address: str, **settings: str) -> Iterator[str]:
    """Run ``xbuild native serve`` in a server's namespace; yield the path of its log."""
    log = f"{settings['log']}/{address}.log"
    command = [*tree.runner.xbuild, "native", "serve", settings.get("served", tree.path)]
    command += ["--listen", address, "--allow", "10.77.0.0/16", "--jobs", "3"]
    holder = network.servers[address]
    environment = tree.runner.user.environment(XDG_CACHE_HOME=settings.get("cache", CACHE_HOME))
    with (
        open(log, "wb") as output,
        subprocess.Popen(
            network.argv(holder, command), stderr=output, stdout=output, env=environment
        ) as server,
    ):
        try:
            await_listener(holder, PORT)
            yield log
        finally:
            server.terminate()


def distribute(
    tree: CompilerTree, network: Network, place: str, script: str
) -> subprocess.CompletedProcess[str]:
    hosts = ",".join(f"{address}/3" for address in network.servers)
    command = [*tree.runner.xbuild, "run", "--native", "--distcc", hosts]
    command += ["--bind", f"{place}:/mnt", "--chdir", "/mnt", tree.path, "--", "sh", "-c", script]
    return subprocess.run(
        network.argv(network.client, command),
        env=tree.environment(),
        capture_output=True,
        text=True,
        timeout=WORK_S,
        stdin=subprocess.DEVNULL,
    )


def compiled_by(log: str) -> int:
    """Return how many files a server compiled, but for the question at the start."""
    lines = Path(log).read_text().splitlines()
    return sum("COMPILE_OK" in line and "probe.i" not in line for line in lines)


def test_two_servers_compile_the_same_bytes(
    tree: CompilerTree, work: HostPath, built_here: dict[str, bytes]
) -> None:
    with network_of(2) as network:
        first, second = network.servers
        with (
            serving(tree, network, first, log=work) as one,
            serving(tree, network, second, log=work) as two,
        ):
            place = write_files(f"{work}/far", FILES)
            done = distribute(tree, network, place, "make -s && echo $MAKEFLAGS $MAKEOPTS")
            assert done.returncode == 0, done.stderr
            jobs = 3 + 3 + (os.cpu_count() or 1)
            assert done.stdout == f"-j{jobs} -j{jobs}\n"
            assert objects_in(place) == built_here
            assert compiled_by(one) > 0
            assert compiled_by(two) > 0


def test_server_that_dies_in_the_middle_loses_nothing(
    tree: CompilerTree, work: HostPath, built_here: dict[str, bytes]
) -> None:
    with network_of(2) as network:
        first, second = network.servers
        place = write_files(f"{work}/far", FILES)
        with serving(tree, network, first, log=work) as one:
            dying = ExitStack()
            dying.enter_context(serving(tree, network, second, log=work))
            # The build itself says when: its third object is the sign, and it waits for the end.
            script = (
                "make -s part1.o part2.o part3.o && touch third; while [ ! -e dead ]; do sleep 0.1;"
                " done; make -s"
            )
            killer = _when(f"{place}/third", dying.close)
            with killer(f"{place}/dead"):
                done = distribute(tree, network, place, script)
            assert done.returncode == 0, done.stderr
            assert objects_in(place) == built_here
            assert compiled_by(one) > 0


def _when(sign: str, act: Callable[[], object]) -> Callable[[str], AbstractContextManager[None]]:
    """Return a context in which ``act`` is called once ``sign`` exists, and a file then made."""

    @contextmanager
    def running(done: str) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not os.path.exists(sign) and not over.wait(0.05):
                pass
            act()
            Path(done).touch()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return running


def test_server_with_another_set_is_left_out(tree: CompilerTree, work: HostPath) -> None:
    """Its compiler comes from a tree that differs in a byte: it must not compile for this one."""
    cache = f"{work}/other-cache"
    other = replace(
        tree.toolset,
        tools=tuple(
            replace(tool, sha256="0" * 64) if tool.path.endswith("/cc1") else tool
            for tool in tree.toolset.tools
        ),
    )
    sets = f"{cache}/xbuild/native/sets/{compute_digest(other)}"
    os.makedirs(sets)
    subprocess.run(["cp", "-al", tree.toolset.root, f"{sets}/root"], check=True)
    write_manifest(other, HostPath(sets))
    assert read_toolset(HostPath(sets)).digest != tree.toolset.digest
    with network_of(1) as network:
        (address,) = network.servers
        served = compute_digest(other)[:16]
        place = write_files(f"{work}/far", FILES)
        with serving(tree, network, address, log=work, served=served, cache=cache) as log:
            done = distribute(tree, network, place, "make -s part1.o; echo $PATH")
            assert done.returncode == 0, done.stderr
            assert any("has not this set" in note and address in note for note in notes(done))
            assert "distcc" not in done.stdout
            assert compiled_by(log) == 0


def test_no_server_at_all_is_said(tree: CompilerTree, work: HostPath) -> None:
    with network_of(1) as network:
        done = distribute(tree, network, write_files(f"{work}/far", FILES), "make -s part1.o")
    assert done.returncode == 0, done.stderr
    assert any("cannot be reached" in note for note in notes(done))
    assert any("all is compiled here" in note for note in notes(done))
