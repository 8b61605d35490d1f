"""Settings beside a tree: whose they may be, who wins over them, and who said what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.capability import require
from xbuild.cli.merge import profile_keys, settings_said
from xbuild.cli.options import parse
from xbuild.cli.settings import build_request
from xbuild.errors import ProfileError
from xbuild.plan.profile import read_profile
from xbuild.plan.request import Request
from xbuild.record import HostPath


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config/xbuild/profiles").mkdir(parents=True)
    (tmp_path / "board").mkdir()
    return tmp_path / "board"


def write(tree: Path, text: str) -> Path:
    beside = tree.with_name("board.xbuild.toml")
    beside.write_text(text)
    beside.chmod(0o644)
    return beside


def request(tree: Path, *words: str) -> Request:
    return build_request(parse([*words, str(tree)]))


def test_settings_beside_a_tree_apply(tree: Path) -> None:
    write(tree, "hostname = 'board-1'\nbind = ['src:/src']\npartition = '2'\n")
    found = request(tree)
    assert (found.hostname, found.partition) == ("board-1", "2")
    assert found.binds[0].source == str(tree.parent / "src")


def test_a_link_to_the_tree_has_the_settings_of_the_tree(tree: Path) -> None:
    write(tree, "hostname = 'board-1'\n")
    link = tree.with_name("link")
    link.symlink_to(tree)
    assert request(link).hostname == "board-1"


def test_they_can_be_left_unread(tree: Path) -> None:
    write(tree, "nonsense")
    assert request(tree, "--no-settings").hostname is None


def test_order_of_those_who_say_something(tree: Path, tmp_path: Path) -> None:
    profiles = tmp_path / "config/xbuild/profiles"
    (profiles / "default.toml").write_text(
        "hostname = 'default'\nuser = 'default'\ncpu = 'default'\n"
    )
    beside = write(tree, "hostname = 'beside'\nuser = 'beside'\n")
    (profiles / "asked.toml").write_text("hostname = 'asked'\nexclusive = true\n")
    assert (request(tree).hostname, request(tree).cpu) == ("beside", "default")
    parsed = parse(["--profile", "asked", "--chdir", "/x", str(tree)])
    found = build_request(parsed)
    assert (found.hostname, found.user, found.cpu) == ("asked", "beside", "default")
    assert {(each.key, each.value, each.origin) for each in settings_said(parsed)} == {
        ("hostname", "asked", str(profiles / "asked.toml")),
        ("user", "beside", str(beside)),
        ("cpu", "default", str(profiles / "default.toml")),
        ("exclusive", "true", str(profiles / "asked.toml")),
        ("chdir", "/x", "command line"),
    }


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_what_others_may_write_is_refused(tree: Path, mode: int) -> None:
    write(tree, "hostname = 'x'\n").chmod(mode)
    with pytest.raises(ProfileError, match="could be somebody else's"):
        request(tree)


def test_what_is_another_users_is_refused(tree: Path) -> None:
    require("root", os.geteuid() == 0, "gives a file away")
    os.chown(write(tree, "hostname = 'x'\n"), 12345, 12345)
    with pytest.raises(ProfileError, match="could be somebody else's"):
        request(tree)


def test_another_users_link_is_refused(tree: Path) -> None:
    """To settings that are somebody's who may, of another tree."""
    require("root", os.geteuid() == 0, "gives a link away")
    beside = write(tree, "hostname = 'x'\n")
    beside.rename(tree.parent / "other.toml")
    beside.symlink_to("other.toml")
    assert request(tree).hostname == "x"
    os.chown(beside, 12345, 12345, follow_symlinks=False)
    with pytest.raises(ProfileError, match="could be somebody else's"):
        request(tree)


def test_whose_it_is_is_asked_of_the_file_that_is_read(tree: Path) -> None:
    """Whatever has that name by then."""
    beside, theirs = write(tree, "hostname = 'ours'\n"), tree.parent / "theirs"
    theirs.write_text("hostname = 'theirs'\n")
    ours = beside.stat().st_ino

    def exchange(path: str, status: os.stat_result) -> None:
        theirs.rename(path)
        assert status.st_ino == ours

    found = read_profile(HostPath(str(beside)), profile_keys(), None, exchange)
    assert found.values == (("hostname", ("ours",)),)
    assert beside.read_text() == "hostname = 'theirs'\n"
