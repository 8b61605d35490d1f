"""Fixtures of the tests that run containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.bootstrap_archive import Maker, essential_packages, readable_keyring
from tests.capability import require
from tests.interpreters import Versions, fetch_versions
from tests.loopback import Site, served
from tests.native_trees import unpack_compiler_tree
from tests.openpgp import Signer, signer
from tests.runs import KINDS, Kind, Runner
from tests.toolsets import NativeAs, NativeRunner
from tests.trees import TreeStore
from tests.users import User, current_user
from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath, replace
from xbuild.source.debian import default_suites, fetch_debian_archive

APPLETS = (
    "[ cat chmod chown chroot echo env false grep head id ln ls mkdir mount mv ps pwd readlink"
)
APPLETS += " rm sh sleep stat sync test touch true umount uname wc"


@pytest.fixture
def need_root() -> None:
    """Run the test as root alone, whoever it drops to."""
    require("root", os.geteuid() == 0, "arranges what only root can")


@pytest.fixture
def runner_of(
    request: pytest.FixtureRequest,
    foreign_tree: Callable[..., HostPath],
    xbuild_for: Callable[[User | None], list[str]],
    reachable_directory: HostPath,
) -> Callable[[Kind], Runner]:
    """``runner_of("range")``: xbuild as that kind of person."""

    def make(kind: Kind) -> Runner:
        if kind == "root":
            require("root", os.geteuid() == 0, "the tests do not run as root")
            home = os.path.join(reachable_directory, "home-root")
            os.makedirs(home, exist_ok=True)
            user = current_user(home)
        else:
            fixture = {"range": "ordinary_user", "plain": "plain_user"}[kind]
            user = request.getfixturevalue(fixture)
        xbuild = tuple(xbuild_for(user))
        return Runner(kind, user, xbuild, lambda name: foreign_tree(name, user))

    return make


@pytest.fixture
def root(runner_of: Callable[[Kind], Runner]) -> Runner:
    """Xbuild as real root."""
    return runner_of("root")


@pytest.fixture
def ranged(runner_of: Callable[[Kind], Runner]) -> Runner:
    """Xbuild as an ordinary user with subordinate ids."""
    return runner_of("range")


@pytest.fixture
def single(runner_of: Callable[[Kind], Runner]) -> Runner:
    """Xbuild as an ordinary user with one id."""
    return runner_of("plain")


@pytest.fixture(params=KINDS)
def runner(request: pytest.FixtureRequest, runner_of: Callable[[Kind], Runner]) -> Runner:
    """Xbuild as each kind of person in turn."""
    kind: Kind = request.param
    return runner_of(kind)


@pytest.fixture
def new_tree(reachable_directory: HostPath) -> Iterator[Callable[[User], HostPath]]:
    """``new_tree(user)``: an empty directory of that user's, for a tree made by the test.

    What is beside it is not the user's.
    """
    with ExitStack() as stack:

        def make(user: User) -> HostPath:
            tree = f"{stack.enter_context(_directory(reachable_directory))}/tree"
            os.mkdir(tree)
            os.chown(tree, user.uid, user.gid)
            return HostPath(tree)

        yield make


@pytest.fixture
def new_place(reachable_directory: HostPath) -> Iterator[Callable[[User], HostPath]]:
    """``new_place(user)``: an empty directory of that user's, gone afterwards with all in it."""
    with ExitStack() as stack:

        def make(user: User) -> HostPath:
            place = stack.enter_context(_directory(reachable_directory))
            os.chown(place, user.uid, user.gid)
            return HostPath(place)

        yield make


@contextmanager
def _directory(parent: HostPath) -> Iterator[str]:
    place = tempfile.mkdtemp(prefix="new-", dir=parent)
    os.chmod(place, 0o755)
    yield place
    # Files of subordinate ids are not for an ordinary user to remove.
    subprocess.run(["rm", "-rf", "--one-file-system", place], check=os.geteuid() == 0)


@pytest.fixture(scope="session")
def busybox(tree_store: TreeStore, reachable_directory: HostPath) -> Callable[[str], HostPath]:
    """``busybox("armhf")``: Debian's static busybox for an architecture, as a file."""
    found: dict[str, HostPath] = {}

    def get(architecture: str) -> HostPath:
        if architecture not in found:
            place = HostPath(f"{reachable_directory}/busybox-{architecture}")
            with open(place, "wb") as program:
                command = ["tar", "-xOf", _busybox_archive(architecture), "usr/bin/busybox"]
                subprocess.run(command, stdout=program, check=True)
            os.chmod(place, 0o755)
            found[architecture] = place
        return found[architecture]

    return get


def _busybox_archive(architecture: str) -> HostPath:
    try:
        return fetch_debian_archive(
            architecture,
            default_suites(architecture),
            ("busybox-static",),
            progress=lambda _text, _fraction: None,
        )
    except MirrorUnavailable as error:
        require("mirror", False, error.message)
    raise AssertionError("require does not return")


@pytest.fixture
def busybox_tree(
    busybox: Callable[[str], HostPath], new_tree: Callable[..., HostPath]
) -> Callable[..., HostPath]:
    """``busybox_tree("armhf", user)``: a tree of nothing but busybox and links to it."""

    def make(architecture: str, user: User) -> HostPath:
        tree = new_tree(user)
        for name in ("bin", "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr"):
            os.mkdir(f"{tree}/{name}")
        shutil.copy(busybox(architecture), f"{tree}/bin/busybox")
        for applet in APPLETS.split():
            os.symlink("/bin/busybox", f"{tree}/bin/{applet}")
        subprocess.run(["chown", "-hR", f"{user.uid}:{user.gid}", tree], check=True)
        return tree

    return make


@pytest.fixture
def native_as(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeAs]:
    """``native_as(runner)``: that runner with --native and an empty cache of its own."""
    made: list[HostPath] = []

    def make(runner: Runner) -> NativeRunner:
        made.append(HostPath(f"{runner.user.home}/native-cache-{os.getpid()}"))
        return NativeRunner(runner, made[-1])

    yield make
    for cache in made:
        shutil.rmtree(cache)


@pytest.fixture
def native(root: Runner, native_as: NativeAs) -> NativeRunner:
    """Real root with --native."""
    return native_as(root)


@pytest.fixture(scope="session")
def _fetched_versions() -> dict[str, Versions]:
    return {}


@pytest.fixture
def qemu_versions(ranged: Runner, _fetched_versions: dict[str, Versions]) -> Versions:
    """An ordinary user with two releases of qemu in a cache, fetched by the first test to ask."""
    if "both" not in _fetched_versions:
        cache = f"{ranged.user.home}/qemu-versions"
        _fetched_versions["both"] = fetch_versions(ranged, cache)
    return replace(_fetched_versions["both"], runner=ranged)


@pytest.fixture(scope="module")
def place(reachable_directory: HostPath) -> Iterator[HostPath]:
    """A directory for the compiler tree of a module, and for what its tests put beside it."""
    directory = tempfile.mkdtemp(prefix="compilers-", dir=reachable_directory)
    os.chmod(directory, 0o755)
    yield HostPath(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def compiler_path(place: HostPath) -> HostPath:
    """An arm64 tree with GCC, of the module's own."""
    return unpack_compiler_tree(HostPath(f"{place}/tree"))


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server that has nothing yet."""
    with served() as made:
        yield made


@pytest.fixture(scope="module")
def keys() -> Iterator[Signer]:
    """Keys named good, other and old."""
    with signer() as made:
        yield made


@pytest.fixture(scope="session")
def debs_of() -> Callable[[str], tuple[str, ...]]:
    """``debs_of("arm64")``: the packages that every tree has, looked for once."""
    found: dict[str, tuple[str, ...]] = {}

    def get(architecture: str) -> tuple[str, ...]:
        if architecture not in found:
            found[architecture] = essential_packages(architecture)
        return found[architecture]

    return get


@pytest.fixture
def maker_of(
    keys: Signer, runner_of: Callable[[Kind], Runner], new_place: Callable[[User], HostPath]
) -> Callable[[Kind], Maker]:
    """``maker_of("range")``: that kind of person, who makes a tree of Ubuntu."""

    def make(kind: Kind) -> Maker:
        runner = runner_of(kind)
        place = new_place(runner.user)
        os.mkdir(f"{place}/own")
        os.chown(f"{place}/own", runner.user.uid, runner.user.gid)
        return Maker(runner, place, readable_keyring(keys, "good", place))

    return make
