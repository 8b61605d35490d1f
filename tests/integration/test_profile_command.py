"""``xbuild profile`` and ``xbuild run --profile`` as a person uses them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.users import User
from xbuild.record import HostPath

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    directory = tmp_path / "xbuild/profiles"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def xbuild(xbuild_for: Callable[[User | None], list[str]], tmp_path: Path) -> Run:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"XDG_CONFIG_HOME": str(tmp_path)}
        argv = [*xbuild_for(None), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)

    return run


def test_shipped_profiles_are_listed(xbuild: Run) -> None:
    rows = [line.split(None, 2) for line in xbuild("profile", "list").stdout.splitlines()]
    assert rows[0] == ["NAME", "FROM", "WHAT IT DOES"]
    assert {(name, place) for name, place, _ in rows[1:]} >= {
        ("build", "shipped"),
        ("ci", "shipped"),
        ("default", "shipped"),
        ("image", "shipped"),
    }


def test_own_profiles_are_listed_with_what_is_the_matter(xbuild: Run, profiles: Path) -> None:
    (profiles / "broken.toml").write_text("\nbnd = 1\n")
    (profiles / "default.toml").write_text("description = 'mine'\n")
    document = json.loads(xbuild("profile", "list", "--json").stdout)
    assert document["schema"] == "xbuild.profile/1"
    found = {(each["name"], each["origin"]): each for each in document["profiles"]}
    assert found["broken", "user"]["error"].startswith(f"{profiles}/broken.toml:2: unknown key")
    assert found["broken", "user"]["settings"] is None
    assert found["default", "user"]["applies_by_itself"]
    assert found["default", "shipped"]["shadowed_by"] == f"{profiles}/default.toml"
    text = xbuild("profile", "list").stdout
    assert "mine (applies to every run)" in text
    assert f"(hidden by {profiles}/default.toml)" in text


def test_profile_is_shown_as_written_and_is_one_again(xbuild: Run, tmp_path: Path) -> None:
    shown = xbuild("profile", "show", "build").stdout
    copy = tmp_path / "copy.toml"
    copy.write_text(shown)
    assert xbuild("profile", "show", str(copy)).stdout == f"# {copy}\n{shown}"


def test_profile_is_shown_as_understood(xbuild: Run, profiles: Path) -> None:
    (profiles / "x.toml").write_text("bind = ['a:/b']\nhostname = 'pi'\n[setenv]\nA = '1'\n")
    document = json.loads(xbuild("profile", "show", "x", "--json").stdout)
    assert document["schema"] == "xbuild.profile/1"
    assert document["profiles"] == [
        {
            "name": "x",
            "origin": "user",
            "path": f"{profiles}/x.toml",
            "shadowed_by": None,
            "applies_by_itself": False,
            "error": None,
            "description": "",
            "arch": [],
            "settings": {"bind": [f"{profiles}/a:/b"], "hostname": "pi", "setenv": ["A=1"]},
        }
    ]


def test_profile_outside_of_the_places_is_a_file(xbuild: Run, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("cpu = 'max'\n")
    document = json.loads(xbuild("profile", "show", f"{tmp_path}/x.toml", "--json").stdout)
    (found,) = document["profiles"]
    assert (found["origin"], found["settings"]) == ("file", {"cpu": "max"})


def test_wrong_profile_ends_a_run_with_its_line(xbuild: Run, profiles: Path) -> None:
    (profiles / "x.toml").write_text("# settings\nread_only = 'no'\n")
    answer = xbuild("run", "--profile", "x", "/")
    complaint = f"xbuild: {profiles}/x.toml:2: read_only takes true or false, not a string\n"
    assert (answer.returncode, answer.stderr) == (2, complaint)


def test_profile_that_is_not_there_ends_a_run(xbuild: Run) -> None:
    answer = xbuild("run", "--profile", "biuld", "/")
    assert answer.returncode == 2
    assert "hint: did you mean build?" in answer.stderr


def test_build_profile_gives_scratch_space(
    xbuild: Run, foreign_tree: Callable[..., HostPath]
) -> None:
    script = "stat -fc %T /var/tmp && echo $DEBIAN_FRONTEND"
    answer = xbuild("run", "--profile", "build", foreign_tree("arm64"), "--", "sh", "-c", script)
    assert answer.stdout == "tmpfs\nnoninteractive\n", answer.stderr


def test_scratch_space_of_a_32_bit_tree_has_32_bit_inodes(
    xbuild: Run, foreign_tree: Callable[..., HostPath]
) -> None:
    tree = foreign_tree("armhf")
    plan = xbuild("run", "--dry-run", "--profile", "build", tree, "--", "true").stdout
    line = next(line for line in plan.splitlines() if line.split()[:2] == ["tmpfs", "/var/tmp"])
    assert "size=75%,inode32" in line
