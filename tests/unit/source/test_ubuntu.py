"""Where packages of an Ubuntu suite come from: two archives, two formats of sources."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.crafted import make_tree
from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath
from xbuild.source import ubuntu
from xbuild.source.ubuntu import (
    Source,
    archives_for,
    find_archives,
    find_ubuntu_mirrors,
    parse_sources,
    sources_of,
)
from xbuild.tree.resolve import DirectoryReader

DEB822 = """\
# See sources.list(5)
Types: deb
URIs: http://ports.ubuntu.com/ubuntu-ports/
Suites: noble noble-updates noble-backports
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

types: deb deb-src
uris: https://one.example/ubuntu-ports
 https://two.example/ubuntu-ports
suites: noble

Types: deb-src
URIs: http://source.example/ubuntu
Suites: noble

Enabled: no
Types: deb
URIs: http://off.example/ubuntu
Suites: noble
"""
ONE_LINE = """\
# deb http://comment.example/ubuntu noble main
deb http://ports.ubuntu.com/ubuntu-ports noble main restricted # the archive
deb [arch=arm64 signed-by=/usr/share/keyrings/a b.gpg] http://mine.example/ubuntu noble-updates main
deb-src http://ports.ubuntu.com/ubuntu-ports noble main
deb\thttp://tabs.example/ubuntu-ports/\tjammy\tmain
deb cdrom:[Ubuntu] noble main
"""


@pytest.mark.parametrize(
    ("uri", "architecture", "expected"),
    [
        ("http://ports.ubuntu.com/ubuntu-ports", "amd64", "http://archive.ubuntu.com/ubuntu"),
        ("http://ports.ubuntu.com/ubuntu-ports/", "arm64", "http://ports.ubuntu.com/ubuntu-ports"),
        ("http://archive.ubuntu.com/ubuntu", "amd64", "http://archive.ubuntu.com/ubuntu"),
        ("http://archive.ubuntu.com/ubuntu/", "arm64", "http://ports.ubuntu.com/ubuntu-ports"),
        ("https://de.archive.ubuntu.com/ubuntu", "arm64", "https://ports.ubuntu.com/ubuntu-ports"),
        ("http://security.ubuntu.com/ubuntu", "riscv64", "http://ports.ubuntu.com/ubuntu-ports"),
        ("http://mirror.example/ubuntu-ports", "amd64", "http://mirror.example/ubuntu"),
        (
            "http://mirror.example:8080/pub/ubuntu",
            "s390x",
            "http://mirror.example:8080/pub/ubuntu-ports",
        ),
        ("http://mirror.example/own/name", "amd64", "http://mirror.example/own/name"),
    ],
)
def test_archive_of_an_architecture(uri: str, architecture: str, expected: str) -> None:
    assert archives_for(uri, architecture) == (expected,)


@pytest.mark.parametrize(
    "uri",
    [
        "cdrom:[Ubuntu]",
        "file:/srv/ubuntu",
        "http://user:word@host/ubuntu",
        "http://a b/ubuntu",
        "mirror+file:/etc/apt/list",
        "http://x/ubuntu]\ndeb http://y/ubuntu",
    ],
)
def test_what_is_no_server_is_left_out(uri: str) -> None:
    assert archives_for(uri, "amd64") == ()


def test_deb822_sources() -> None:
    assert parse_sources(DEB822, is_deb822=True) == (
        *(
            Source("http://ports.ubuntu.com/ubuntu-ports", f"noble{x}")
            for x in ("", "-updates", "-backports")
        ),
        Source("https://one.example/ubuntu-ports", "noble"),
        Source("https://two.example/ubuntu-ports", "noble"),
    )


def test_sources_of_one_line() -> None:
    assert parse_sources(ONE_LINE, is_deb822=False) == (
        Source("http://ports.ubuntu.com/ubuntu-ports", "noble"),
        Source("http://mine.example/ubuntu", "noble-updates"),
        Source("http://tabs.example/ubuntu-ports", "jammy"),
        Source("cdrom:[Ubuntu]", "noble"),
    )


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host with a keyring of Ubuntu, and an apt-get that answers what ``answer`` says."""
    (tmp_path / "keyring.gpg").touch()
    (tmp_path / "answer").touch()
    program = tmp_path / "apt-get"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/answer\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(ubuntu.KEYRING_VARIABLE, str(tmp_path / "keyring.gpg"))
    monkeypatch.delenv(ubuntu.MIRROR_VARIABLE, raising=False)
    return tmp_path


def _found(place: Path, files: dict[str, str], architecture: str = "amd64") -> tuple[str, ...]:
    tree = make_tree(place / "tree", {name: text.encode() for name, text in files.items()})
    with DirectoryReader(tree) as reader:
        return tuple(each.uri for each in find_ubuntu_mirrors(reader, "noble", architecture))


def test_tree_s_ports_lead_to_the_archive_of_the_host_s_architecture(host: Path) -> None:
    files = {"etc/apt/sources.list": ONE_LINE, "etc/apt/sources.list.d/ubuntu.sources": DEB822}
    assert _found(host, files) == (
        *("http://archive.ubuntu.com/ubuntu", "https://one.example/ubuntu"),
        "https://two.example/ubuntu",
    )


def test_ubuntu_host_s_own_mirror_comes_first(host: Path) -> None:
    (host / "answer").write_text(
        "'http://near.example/ubuntu/dists/jammy/InRelease' x 0\n"
        "'http://near.example/ubuntu/dists/jammy-updates/InRelease' x 0\n"
        "'http://deb.example/debian/dists/trixie/InRelease' x 0\n"
    )
    files = {"etc/apt/sources.list": ONE_LINE}
    assert _found(host, files)[0] == "http://near.example/ubuntu"
    assert "http://deb.example/debian" not in _found(host / "again", files)


def test_mirror_named_by_the_environment_is_the_only_one(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ubuntu.MIRROR_VARIABLE, "http://mine.example/ubuntu/")
    assert _found(host, {"etc/apt/sources.list": ONE_LINE}) == ("http://mine.example/ubuntu",)
    assert _found(host / "arm", {"etc/apt/sources.list": ""}, "arm64") == (
        "http://mine.example/ubuntu-ports",
    )


def test_tree_that_names_no_archive_says_what_to_set(host: Path) -> None:
    with pytest.raises(MirrorUnavailable) as caught:
        _found(host, {"etc/apt/sources.list": "deb http://x.example/ubuntu jammy main\n"})
    assert ubuntu.MIRROR_VARIABLE in caught.value.hint


def test_tree_s_own_keys_do_not_count(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ubuntu.KEYRING_VARIABLE)
    monkeypatch.setattr(ubuntu, "KEYRING", HostPath("/nonexistent"))
    keys = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
    with pytest.raises(MirrorUnavailable) as caught:
        _found(host, {keys: "a key", "etc/apt/sources.list": ONE_LINE})
    assert ubuntu.KEYRING_VARIABLE in caught.value.hint


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("amd64", "http://archive.ubuntu.com/ubuntu"),
        ("i386", "http://archive.ubuntu.com/ubuntu"),
        ("arm64", "http://ports.ubuntu.com/ubuntu-ports"),
        ("riscv64", "http://ports.ubuntu.com/ubuntu-ports"),
    ],
)
def test_new_trees_are_of_the_archive_of_their_architecture(
    host: Path, architecture: str, expected: str
) -> None:
    """An archive of somebody's own packages on the host is none of Ubuntu's."""
    (host / "answer").write_text("'http://ppa.example/me/ubuntu/dists/noble/InRelease' x 0\n")
    assert find_archives(architecture) == (expected,)


def test_new_trees_are_of_the_host_s_mirror_first(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host / "answer").write_text("'https://de.example/ubuntu/dists/jammy-updates/InRelease' x 0\n")
    assert find_archives("arm64") == (
        *("https://de.example/ubuntu-ports", "http://ports.ubuntu.com/ubuntu-ports"),
    )
    monkeypatch.setenv(ubuntu.MIRROR_VARIABLE, "http://mine.example/pub/ubuntu-ports/")
    assert find_archives("amd64") == ("http://mine.example/pub/ubuntu",)
    monkeypatch.setenv(ubuntu.MIRROR_VARIABLE, "mine.example")
    with pytest.raises(MirrorUnavailable, match="XBUILD_UBUNTU_MIRROR names no archive"):
        find_archives("amd64")


@pytest.mark.parametrize(
    ("archive", "security"),
    [
        ("http://archive.ubuntu.com/ubuntu", "http://security.ubuntu.com/ubuntu"),
        ("https://de.archive.ubuntu.com/ubuntu", "http://security.ubuntu.com/ubuntu"),
        ("http://ports.ubuntu.com/ubuntu-ports", "http://ports.ubuntu.com/ubuntu-ports"),
        ("http://mirror.example/ubuntu", "http://mirror.example/ubuntu"),
        ("http://127.0.0.1:8000/ubuntu", "http://127.0.0.1:8000/ubuntu"),
    ],
)
def test_trees_have_updates_in_their_sources(archive: str, security: str) -> None:
    assert sources_of(archive, "noble") == (
        Source(archive, "noble"),
        Source(archive, "noble-updates"),
        Source(security, "noble-security"),
    )
