"""The tests' own safeguards: a fixture that notices nothing would prove nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from tests import capability, host_state, leftovers, overtime
from tests.conftest import OpenTerminal
from tests.installation import CHECKOUT
from tests.patience import await_lock, wait_for
from tests.trees import TreeStore, tree_hash
from tests.users import User
from xbuild.record import HostPath, replace


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (leftovers, host_state):
        monkeypatch.setattr(module, "_SETTLE_S", 0.5)


@pytest.mark.usefixtures("short_grace")
def test_orphan_in_a_session_of_its_own_is_found() -> None:
    before = leftovers.descendants()
    subprocess.run(["setsid", "--fork", "env", "-i", "/bin/sleep", "60"], check=True)
    left = leftovers.left_since(before)
    leftovers.end(left)
    assert len(left) == 1
    wait_for(lambda: not leftovers.left_since(before))


@overtime.limited(99.0)
def hang() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 1000 & wait"]) as process:
        wait_for(lambda: "sleep 1000" in leftovers.descendants().values())
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        process.wait()


def test_what_hangs_is_ended_when_its_time_is_up() -> None:
    """With all that the test waits for, or its ``with`` would."""
    with pytest.raises(overtime.Overtime, match=r"after 99 s, .*sleep 1000"):
        hang()


@pytest.mark.usefixtures("short_grace")
def test_changed_device_node_is_found(own_places: tuple[str, ...]) -> None:
    before = host_state.observe(own_places)
    earlier = replace(before, nodes={**before.nodes, "null": "crw--w---- 0:5 0x103"})
    found = host_state.differences(earlier, own_places)
    assert [line.split(":")[:2] for line in found] == [["nodes", " null"]]


def test_quiet_host_has_no_differences(own_places: tuple[str, ...]) -> None:
    assert host_state.differences(host_state.observe(own_places), own_places) == []


def test_modified_shared_tree_is_found(tree_store: TreeStore) -> None:
    tree = tree_store.shared("arm64")
    os.utime(os.path.join(tree, "etc/hosts"))
    assert tree_store.forget_modified() == [tree]
    assert tree_store.shared("arm64") != tree


def test_hash_sees_a_rewritten_file_of_same_size_and_time(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "file")
    with open(path, "w") as file:
        file.write("one")
    status, before = os.stat(path), tree_hash(os.fspath(tmp_path))
    with open(path, "r+") as file:
        file.write("two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert tree_hash(os.fspath(tmp_path)) != before


def test_missing_capability_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(capability.VARIABLE, "")
    with pytest.raises(pytest.skip.Exception):
        capability.require("sorcery", False, "no wand")
    monkeypatch.setenv(capability.VARIABLE, "other,sorcery")
    with pytest.raises(pytest.fail.Exception):
        capability.require("sorcery", False, "no wand")
    monkeypatch.setenv(capability.VARIABLE, "all")
    with pytest.raises(pytest.fail.Exception):
        capability.require("sorcery", False, "no wand")
    capability.require("sorcery", True, "wand at hand")


def test_mirror_is_beyond_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capability, "not_tested", [])
    monkeypatch.setenv(capability.VARIABLE, "all")
    with pytest.raises(pytest.skip.Exception):
        capability.require("mirror", False, "out of step")
    assert capability.not_tested == ["mirror: out of step"]


def test_users_have_what_their_names_say(ordinary_user: User) -> None:
    answer = ordinary_user.run(["id", "-u"])
    assert answer.stdout.strip() == str(ordinary_user.uid)
    assert ordinary_user.has_range
    assert ordinary_user.run(["touch", "file"]).returncode == 0


def test_plain_user_has_no_range(plain_user: User) -> None:
    assert not plain_user.has_range


def test_terminal_has_its_size(open_terminal: OpenTerminal, ordinary_user: User) -> None:
    session = open_terminal(["stty", "size"], user=ordinary_user, dimensions=(11, 77))
    session.expect_exact("11 77")
    session.expect(pexpect.EOF)


def test_ordinary_user_can_run_xbuild(
    xbuild_for: Callable[[User | None], list[str]], ordinary_user: User
) -> None:
    answer = ordinary_user.run([*xbuild_for(ordinary_user), "--version"])
    assert answer.returncode == 0, answer.stderr
    own = subprocess.run([*xbuild_for(None), "--version"], stdout=subprocess.PIPE, text=True)
    assert answer.stdout.splitlines()[0] == own.stdout.splitlines()[0]


def test_tree_for_a_user_is_entered_by_that_user(
    foreign_tree: Callable[..., HostPath], ordinary_user: User, plain_user: User
) -> None:
    for user in (ordinary_user, plain_user):
        answer = user.run(["ls", os.path.join(foreign_tree("arm64", user), "root")])
        assert answer.returncode == 0, answer.stderr


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[str]:
    """A file that a loop device shows."""
    capability.require("root", os.geteuid() == 0, "loop devices need root")
    file = tmp_path / "disk"
    file.write_bytes(bytes(1 << 20))
    command = ["losetup", "--find", "--show", str(file)]
    loop = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    yield str(file)
    subprocess.run(["losetup", "--detach", loop], check=True)


def test_loop_device_left_behind_is_found(shown: str, own_places: tuple[str, ...]) -> None:
    assert any(file.startswith(shown) for file in host_state.observe(own_places).loops.values())


def test_loop_device_of_another_session_is_not_ours(shown: str) -> None:
    ours = host_state.observe(("/var/tmp/xbuild-tests-of-this-session",))
    assert not any(file.startswith(shown) for file in ours.loops.values())
    assert "loop0" in ours.nodes


def test_mount_left_behind_is_found(own_places: tuple[str, ...], tmp_path: Path) -> None:
    """In a mount namespace of its own; and one in the directory of another session is not ours."""
    capability.require("root", os.geteuid() == 0, "mounts need root")
    program = (
        "import subprocess, sys; from tests import host_state; own = tuple(sys.argv[2:]);"
        "before = host_state.observe(own); host_state._SETTLE_S = 0.5;"
        "subprocess.run(['mount', '-t', 'tmpfs', 'none', sys.argv[1]], check=True);"
        "print(len(host_state.differences(before, own)))"
    )
    for own, count in ((own_places, "1\n"), (("/var/tmp/xbuild-tests-elsewhere",), "0\n")):
        command = ["unshare", "--mount", sys.executable, "-c", program, str(tmp_path), *own]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=CHECKOUT)
        assert done.stdout == count


def test_sessions_share_the_tests_out(tmp_path: Path) -> None:
    """Each is run once, by one of two; with the fixtures of its file, made anew for each share."""
    for number in range(12):
        (tmp_path / f"test_{number}.py").write_text(_TESTS)
    (tmp_path / "ran").touch()
    queue = tmp_path / "queue"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", "/dev/null"]
    command = [*argv, "--rootdir", str(tmp_path), str(tmp_path), "--queue", str(queue)]
    both = [subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate()[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    ran = (tmp_path / "ran").read_text().split()
    assert sorted(ran) == sorted(
        [*(f"test_{number}.{name}" for number in range(12) for name in "ab")]
    )
    assert len(queue.read_text().split()) == 1 + 12 + 2


_TESTS = """
import pathlib, pytest, time
HERE = pathlib.Path(__file__)
@pytest.fixture(scope="module")
def found():
    time.sleep(0.1)
    return []
@pytest.mark.parametrize("name", ["a", "b"])
def test_it(name, found):
    found.append(name)
    assert found == ["a", "b"][: len(found)]
    with open(HERE.parent / "ran", "a") as file:
        file.write(f"{HERE.stem}.{name} ")
"""


def test_session_with_other_tests_has_another_queue(tmp_path: Path) -> None:
    (tmp_path / "queue").write_text("0000 1\n")
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", "/dev/null"]
    place = str(tmp_path)
    command = [*argv, "--rootdir", place, place, "--queue", f"{place}/queue"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "is that of other tests" in done.stdout + done.stderr


def test_who_is_alone_waits_and_is_not_passed(tmp_path: Path) -> None:
    """One is in, one wants to be alone, a third comes later: in this order they are done."""
    path, order = HostPath(str(tmp_path / "queue")), tmp_path / "order"
    program = (
        "import sys, time; from tests.shares import turn; from xbuild.record import HostPath\n"
        "name, path, order = sys.argv[1:]\n"
        "with turn(HostPath(path), alone=name == 'alone'):\n"
        "    print('in', flush=True); sys.stdin.readline()\n"
        "    with open(order, 'a') as file: file.write(name + ' ')\n"
    )

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, name, path, str(order)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=CHECKOUT, stdin=pipe, stdout=pipe, text=True)

    def await_entry(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"

    with start("first") as first:
        await_entry(first)
        with start("alone") as alone:
            await_lock(alone.pid)
            with start("later") as later:
                await_lock(later.pid)
                first.communicate("\n")
                for process in (alone, later):
                    await_entry(process)
                    process.communicate("\n")
    assert order.read_text() == "first alone later "
