"""The tests' own safeguards: a fixture that notices nothing would prove nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pexpect
import pytest

from tests import capability, host_state, leftovers
from tests.conftest import OpenTerminal
from tests.trees import TreeStore, tree_hash
from tests.users import User
from xbuild.record import HostPath, replace


def test_orphan_in_a_session_of_its_own_is_found() -> None:
    before = leftovers.descendants()
    subprocess.run(["setsid", "--fork", "env", "-i", "/bin/sleep", "60"], check=True)
    left = leftovers.left_since(before)
    leftovers.end(left)
    assert len(left) == 1
    assert not leftovers.left_since(before)


def test_changed_device_node_is_found() -> None:
    before = host_state.observe()
    earlier = replace(before, nodes={**before.nodes, "null": "crw--w---- 0:5 0x103"})
    assert [line.split(":")[:2] for line in host_state.differences(earlier)] == [["nodes", " null"]]


def test_quiet_host_has_no_differences() -> None:
    assert host_state.differences(host_state.observe()) == []


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
