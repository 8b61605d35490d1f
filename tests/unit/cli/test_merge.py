"""Profiles and the command line: who wins, where profiles are found, what the shipped ones say."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbuild.cli.merge import load_profile, profile_directories, profile_keys
from xbuild.cli.options import OPTIONS, parse
from xbuild.cli.settings import build_request
from xbuild.errors import ProfileError
from xbuild.plan.computed import has_computed
from xbuild.plan.request import Request
from xbuild.resources import data_directory


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration directory, with a place for profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "xbuild/profiles").mkdir(parents=True)
    return tmp_path / "xbuild/profiles"


def _request(*words: str) -> Request:
    return build_request(parse([*words, "/tree"]))


def test_shipped_default_changes_nothing() -> None:
    assert _request("--profile", "default") == _request()


def test_shipped_default_shows_every_choice_there_is() -> None:
    said = load_profile("default")
    named = {key for key, _ in (*said.flags, *said.values)}
    closed = {option.key for option in OPTIONS if option.choices or option.takes == "nothing"}
    assert {o.key for o in OPTIONS if o.in_profile} & closed <= named


def test_every_shipped_profile_is_whole_and_described() -> None:
    shipped = sorted(Path(data_directory("profiles")).glob("*.toml"))
    assert {"build", "ci", "default", "gentoo", "image"} <= {path.stem for path in shipped}
    for path in shipped:
        assert load_profile(str(path)).description
        if not has_computed(path.read_text()):  # of a tree that is there
            assert _request("--profile", path.stem).target == "/tree"


def test_keys_are_the_options_that_may_stand_in_a_profile() -> None:
    names = {key.name for key in profile_keys()}
    assert {"bind", "bind_ro", "tmpfs", "setenv", "env_file", "certify", "private_users"} <= names
    assert not names & {"profile", "dry_run", "json", "help"}


def test_command_line_wins_over_a_profile(config: Path) -> None:
    (config / "x.toml").write_text("network = 'none'\nhostname = 'profile'\n")
    request = _request("--profile", "x", "--network", "host")
    assert (request.network, request.hostname) == ("host", "profile")


def test_later_profile_wins_over_an_earlier_one(config: Path) -> None:
    (config / "a.toml").write_text("hostname = 'a'\nread_only = true\nephemeral = true\n")
    (config / "b.toml").write_text("hostname = 'b'\nread_only = false\n")
    request = _request("--profile", "a", "--profile", "b")
    assert (request.hostname, request.read_only, request.ephemeral) == ("b", False, True)


def test_lists_are_joined_with_the_profiles_first(config: Path) -> None:
    (config / "a.toml").write_text("setenv = ['A=profile', 'B=profile']\ntmpfs = ['/a']\n")
    request = _request("-E", "A=typed", "--tmpfs", "/b", "--profile", "a")
    assert request.environment == (("A", "profile"), ("B", "profile"), ("A", "typed"))
    assert [each.destination for each in request.tmpfs] == ["/a", "/b"]


def test_own_default_applies_without_being_asked_for(config: Path) -> None:
    (config / "default.toml").write_text("hostname = 'mine'\ntmpfs = ['/mine']\n")
    assert _request().hostname == "mine"
    assert _request("--profile", "build").hostname == "mine"
    assert len(_request("--profile", "default").tmpfs) == 1


def test_own_profile_hides_a_shipped_one(config: Path) -> None:
    (config / "build.toml").write_text("")
    assert _request("--profile", "build") == _request()


def test_relative_bind_is_the_profiles_neighbour(config: Path) -> None:
    (config / "x.toml").write_text("bind = ['src:/src']\nbind_ro = ['../lib:/lib']\n")
    sources = [bind.source for bind in _request("--profile", "x").binds]
    assert sources == [f"{config}/src", f"{config.parent}/lib"]


def test_relative_files_are_the_profiles_neighbours(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (config / "vars").write_text("A=1\n")
    (config / "x.toml").write_text("env_file = ['vars']\ninterpreter = './qemu'\n")
    request = _request("--profile", "x")
    assert request.environment == (("A", "1"),)
    assert request.interpreter == f"{config}/qemu"


def test_home_is_expanded(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (config / "x.toml").write_text("bind = ['~/src:/src']\ninterpreter = '~/qemu'\n")
    request = _request("--profile", "x")
    assert request.binds[0].source == "/home/me/src"
    assert request.interpreter == "/home/me/qemu"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("network = 'all'", ":1: --network does not know 'all'"),
        ("\nbinfmt = ''", ":2: --binfmt does not know ''"),
        ("tmpfs = ['tmp']", ":1: --tmpfs takes an absolute path inside the tree, not 'tmp'"),
        ("tmpfs = ['/tmp:mode=9']", ":1: Not an octal mode in --tmpfs /tmp:mode=9: '9'"),
        ("bind = [':/x']", ":1: A bind without a source: :/x"),
        ("bind = ['/x:x']", ":1: --bind takes an absolute path inside the tree, not 'x'"),
        ("chdir = 'src'", ":1: --chdir takes an absolute path inside the tree, not 'src'"),
        ("hostname = 'a b'", ":1: Not a host name: 'a b'"),
        ("setenv = ['=x']", ":1: Not a variable: '=x'"),
        ("env_file = ['absent']", "absent: No such file or directory"),
        ("profile = ['other']", ":1: unknown key 'profile'"),
    ],
)
def test_value_that_a_run_would_refuse_is_refused_with_its_line(
    config: Path, text: str, complaint: str
) -> None:
    (config / "x.toml").write_text(text)
    with pytest.raises(ProfileError) as caught:
        _request("--profile", "x")
    assert caught.value.message.startswith(f"{config}/x.toml:")
    assert complaint in caught.value.message


def test_places_are_the_users_then_the_administrators_then_ours(config: Path) -> None:
    shipped = data_directory("profiles")
    assert profile_directories() == (str(config), "/etc/xbuild/profiles", shipped)
