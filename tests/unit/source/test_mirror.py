"""Which of the host's apt sources carry Debian."""

from __future__ import annotations

import os

import pytest

from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath
from xbuild.source import mirror
from xbuild.source.mirror import debian_bases, find_mirrors, find_security_archive


def test_only_suites_of_debian_count() -> None:
    listing = """\
'http://one.example/debian/dists/trixie/InRelease' one_InRelease 0
'http://one.example/debian/dists/trixie-updates/InRelease' one_InRelease 0
'http://security.example/debian-security/dists/trixie-security/InRelease' s_InRelease 0
'https://vendor.example/apt/dists/nodistro/InRelease' vendor_InRelease 0
'http://one.example/debian/dists/trixie/main/binary-amd64/Packages.xz' packages 0
'https://two.example/d/dists/sid/InRelease' two_InRelease 0
"""
    assert debian_bases(listing) == ("http://one.example/debian", "https://two.example/d")


def test_mirror_named_by_the_environment_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    keyring = _file(tmp_path, "keyring.gpg", "")
    monkeypatch.setattr(mirror, "KEYRINGS", (keyring,))
    monkeypatch.setenv(mirror.MIRROR_VARIABLE, "http://mine.example/debian/")
    assert [found.uri for found in find_mirrors()] == ["http://mine.example/debian"]


def test_host_of_another_distribution_asks_debootstrap(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    script = 'DEF_MIRROR="http://debian.example/debian"\nDEF_HTTPS_MIRROR="https://x.example"\n'
    monkeypatch.delenv(mirror.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(mirror, "KEYRINGS", (_file(tmp_path, "keyring.gpg", ""),))
    monkeypatch.setattr(mirror, "DEBOOTSTRAP", _file(tmp_path, "debootstrap", script))
    _answer_of_apt_get(monkeypatch, tmp_path, "'http://u.example/ubuntu/dists/noble/InRelease' x 0")
    assert [found.uri for found in find_mirrors()] == ["http://debian.example/debian"]


def test_security_updates_come_from_where_the_host_has_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    listing = """\
'http://u.example/ubuntu/dists/noble-security/InRelease' u 0
'http://one.example/security/dists/trixie-security/InRelease' s 0
"""
    _answer_of_apt_get(monkeypatch, tmp_path, listing)
    assert find_security_archive() == "http://one.example/security"


def test_security_updates_come_from_debian_where_the_host_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    _answer_of_apt_get(monkeypatch, tmp_path, "")
    assert find_security_archive() == "http://security.debian.org/debian-security"


def test_host_that_knows_no_mirror_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    monkeypatch.delenv(mirror.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(mirror, "KEYRINGS", (_file(tmp_path, "keyring.gpg", ""),))
    monkeypatch.setattr(mirror, "DEBOOTSTRAP", HostPath("/nonexistent"))
    _answer_of_apt_get(monkeypatch, tmp_path, "")
    with pytest.raises(MirrorUnavailable) as caught:
        find_mirrors()
    assert "debootstrap" in caught.value.hint


def test_missing_keyring_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "KEYRINGS", ())
    with pytest.raises(MirrorUnavailable) as caught:
        find_mirrors()
    assert "debian-archive-keyring" in caught.value.hint


def _file(directory: os.PathLike[str], name: str, text: str) -> HostPath:
    path = HostPath(os.path.join(directory, name))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _answer_of_apt_get(
    monkeypatch: pytest.MonkeyPatch, directory: os.PathLike[str], answer: str
) -> None:
    program = _file(directory, "apt-get", f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    os.chmod(program, 0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
