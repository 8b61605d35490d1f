"""Fixtures that all tests share; what each does lives in the module that it is named after."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Protocol

import pexpect
import pytest
from hypothesis import HealthCheck, settings

from tests import capability, host_state, installation, leftovers, overtime, shares, users
from tests.patience import PATIENCE_S, WORK_S
from tests.trees import TreeStore
from tests.users import User
from xbuild.record import HostPath


def pytest_configure() -> None:
    """Have signals do what they do in a terminal's foreground.

    A shell starts what it puts into the background with SIGINT and SIGQUIT ignored, nohup with
    SIGHUP ignored, and everything that the tests start would ignore them as well.
    """
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _use_same_examples_each_time()


def _use_same_examples_each_time() -> None:
    """Have hypothesis judge the code, and neither its luck nor what else the machine has to do."""
    settings.register_profile(
        "xbuild", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("xbuild")


class OpenTerminal(Protocol):
    """Start ``command`` on a new terminal; see pexpect.spawn for what is returned."""

    def __call__(
        self,
        command: list[str],
        *,
        user: User | None = None,
        dimensions: tuple[int, int] = (24, 80),
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> pexpect.spawn[str]: ...


@pytest.fixture(scope="session")
def require() -> Callable[[str, bool, str], None]:
    """The gate of tests/capability.py."""
    return capability.require


@pytest.fixture(scope="session")
def reachable_directory() -> Iterator[HostPath]:
    """A directory that every user can enter, removed when the session ends."""
    above, prefix = os.path.split(host_state.REACHABLE)
    directory = tempfile.mkdtemp(prefix=prefix, dir=above)
    os.chmod(directory, 0o755)
    yield HostPath(directory)
    subprocess.run(["rm", "-rf", "--one-file-system", directory], check=False)


@pytest.fixture(scope="session")
def tree_store(reachable_directory: HostPath) -> TreeStore:
    """The session's foreign trees."""
    directory = os.path.join(reachable_directory, "trees")
    os.mkdir(directory)
    return TreeStore(HostPath(directory))


@pytest.fixture
def foreign_tree(tree_store: TreeStore) -> Iterator[Callable[..., HostPath]]:
    """``foreign_tree("arm64", owner=None)``: a real Debian tree, shared: a test must not modify it.

    Whoever does fails, and the next one gets a pristine tree again.
    """
    yield tree_store.shared
    modified = tree_store.forget_modified()
    assert not modified, f"this test modified the shared tree {modified}: use fresh_tree"


@pytest.fixture
def fresh_tree(tree_store: TreeStore) -> Iterator[Callable[..., HostPath]]:
    """``fresh_tree("arm64", owner=None, more=())``: a real Debian tree that is this test's alone.

    It has the packages ``more`` besides the usual ones.
    """
    made: list[HostPath] = []

    def make(architecture: str, owner: User | None = None, more: tuple[str, ...] = ()) -> HostPath:
        made.append(tree_store.fresh(architecture, owner, more))
        return made[-1]

    yield make
    for tree in made:
        subprocess.run(["rm", "-rf", "--one-file-system", os.path.dirname(tree)], check=False)


@pytest.fixture(scope="session")
def _made_users() -> Iterator[None]:
    with users.made_users() if os.geteuid() == 0 else nullcontext():
        yield


@pytest.fixture(scope="session")
def ordinary_user(_made_users: None, reachable_directory: HostPath) -> User:
    """An ordinary user with a range of subordinate ids: made by root, else who runs the tests."""
    if os.geteuid() == 0:
        return users.known_user(users.WITH_RANGE, f"{reachable_directory}/home-range")
    user = users.current_user(tempfile.mkdtemp(dir=reachable_directory))
    capability.require("subids", user.has_range, f"/etc/subuid grants {user.name} no ids")
    return user


@pytest.fixture(scope="session")
def plain_user(_made_users: None, reachable_directory: HostPath) -> User:
    """An ordinary user without subordinate ids."""
    if os.geteuid() == 0:
        return users.known_user(users.WITHOUT_RANGE, f"{reachable_directory}/home-plain")
    user = users.current_user(tempfile.mkdtemp(dir=reachable_directory))
    capability.require("plain_user", not user.has_range, f"{user.name} has subordinate ids")
    return user


@pytest.fixture(scope="session")
def run_as() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_as(user, argv, **options)``: see tests.users.User.run."""
    return User.run


@pytest.fixture(scope="session")
def xbuild_for(reachable_directory: HostPath) -> Callable[[User | None], list[str]]:
    """``xbuild_for(user)``: the command line of xbuild, for a user or for who runs the tests."""
    made: dict[bool, HostPath] = {}

    def command(user: User | None = None) -> list[str]:
        is_own = user is None or user.is_self
        if is_own not in made:
            place = HostPath(tempfile.mkdtemp(prefix="xbuild-", dir=reachable_directory))
            if user is None or user.is_self:
                made[is_own] = installation.own_launcher(place)
            else:
                made[is_own] = installation.copy_for(user, place)
        return [made[is_own]]

    return command


@pytest.fixture
def open_terminal() -> Iterator[OpenTerminal]:
    """Start programs on terminals of their own; what still runs at the end is killed."""
    with ExitStack() as stack:

        def start(
            command: list[str],
            *,
            user: User | None = None,
            dimensions: tuple[int, int] = (24, 80),
            env: dict[str, str] | None = None,
            cwd: str | None = None,
            timeout_s: float = PATIENCE_S,
        ) -> pexpect.spawn[str]:
            argv = user.argv(command) if user else command
            settings: dict[str, Any] = {"env": env or (user.environment() if user else None)}
            program = shutil.which(argv[0])
            assert program is not None, argv[0]
            session = pexpect.spawn(
                program,
                argv[1:],
                timeout=timeout_s,
                encoding="utf-8",
                dimensions=dimensions,
                cwd=cwd or (user.home if user else None),
                **settings,
            )
            session.delaybeforesend = None
            stack.callback(session.close, force=True)
            return session

        yield start


@pytest.fixture(scope="session")
def own_places(
    reachable_directory: HostPath, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ...]:
    """The directories of this session: what is in another's belongs to that one."""
    return reachable_directory, str(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def host_untouched(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail an integration test that changed the host or left a process behind."""
    if "integration" not in request.path.parts:
        yield
        return
    own: tuple[str, ...] = request.getfixturevalue("own_places")
    with _turn(request.node):
        leftovers.adopt_orphans()
        processes, before = leftovers.descendants(), host_state.observe(own)
        yield
        left = leftovers.left_since(processes)
        leftovers.end(left)
        changed = host_state.differences(before, own)
    assert not left, f"processes left behind: {left}"
    assert not changed, "the host is not as it was: " + "; ".join(changed)


def _turn(test: pytest.Item) -> AbstractContextManager[None]:
    queue: HostPath | None = test.config.getoption("--queue")
    if queue is None:
        return nullcontext()
    return shares.turn(queue, alone=test.get_closest_marker(shares.ALONE) is not None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say how sessions are told to share the tests out."""
    parser.addoption(
        "--queue",
        metavar="FILE",
        help="share the tests out with the other sessions that name this file (at first empty)",
    )


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run what no other session of the queue does; without a queue, pytest runs all."""
    queue: HostPath | None = session.config.getoption("--queue")
    if queue is None or session.testsfailed or session.config.option.collectonly:
        return None
    shares.run_shares(session, shares.Queue(queue, session.items))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    """Have nothing that a test needs take for ever: compilers are proven in minutes, and kept."""
    with overtime.limited(WORK_S):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Have no test take for ever."""
    with overtime.limited():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a skip that went past the gate as a failure where everything is required."""
    report = yield
    is_skip = report.skipped and not hasattr(report, "wasxfail")
    reason = str(report.longrepr)
    passed_gate = any(text in reason for text in capability.not_tested)
    if is_skip and capability.everything_is_required() and not passed_gate:
        report.outcome = "failed"
        report.longrepr = f"skipped where {capability.VARIABLE}=all: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was required and yet not tested."""
    for reason in dict.fromkeys(capability.not_tested):
        terminalreporter.write_line(f"NOT TESTED: {reason}", red=True, bold=True)
