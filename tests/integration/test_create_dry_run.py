"""``xbuild create --dry-run``: what would be done, or refused, and nothing done."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.bootstrap_archive import readable_keyring
from tests.crafted import busybox, make_tar
from tests.integration.test_create_tarball import create, write
from tests.loopback import Site
from tests.openpgp import Signer
from tests.runs import Kind, Runner
from tests.users import User
from xbuild.record import HostPath

NewPlace = Callable[[User], HostPath]
DIGEST = "5" * 64


class Planner:
    """An ordinary user who asks what would be done, in a place with nothing but ``given``."""

    def __init__(self, runner: Runner, place: HostPath, site: Site, keys: Signer) -> None:
        self.runner = runner
        self.place = place
        self._site = site
        self._keyring = readable_keyring(keys, "good", place)
        self.given = write(place, "a.tar", make_tar(busybox("arm64")))

    def plan(self, target: str, source: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Ask, with SITE and KEYRING in words put in; nothing may have come of it."""
        words = [
            text.replace("SITE", self._site.url).replace("KEYRING", self._keyring)
            for text in (source, *options)
        ]
        before = sorted(os.listdir(self.place))
        settings = self.runner.user.environment(XDG_CACHE_HOME=f"{self.place}/cache")
        done = self.runner.command(
            *("create", f"{self.place}/{target}", "--dry-run", "--from", *words), env=settings
        )
        assert sorted(os.listdir(self.place)) == before
        assert not self._site.asked
        return done

    def lines(self, target: str, source: str, *options: str) -> dict[str, str]:
        """Return the lines of a plan by what they are about, the last of each."""
        done = self.plan(target, source, *options)
        assert (done.returncode, done.stderr) == (0, "")
        return {line[:9].strip(): line[9:].strip() for line in done.stdout.splitlines()}


@pytest.fixture
def planner(ranged: Runner, new_place: NewPlace, site: Site, keys: Signer) -> Planner:
    return Planner(ranged, new_place(ranged.user), site, keys)


@pytest.mark.parametrize(
    ("source", "options", "about", "words"),
    [
        ("SITE/b.tar", (), "download", "/b.tar, kept in "),
        ("SITE/b.tar", ("--sha256", DIGEST), "check", DIGEST),
        ("docker://127.0.0.1:9/image:1", (), "fetch", "127.0.0.1:9/image:1 for "),
        (
            "debian:bookworm",
            ("--mirror", "SITE/debian", "--variant", "apt", "--include", "less"),
            "install",
            "the variant apt, and less, by mmdebstrap",
        ),
        (
            "ubuntu:noble",
            ("--mirror", "SITE/ubuntu", "--keyring", "KEYRING"),
            "source",
            "noble-security main restricted universe multiverse",
        ),
        (
            "stage3:arm64-openrc",
            ("--mirror", "SITE", "--keyring", "KEYRING"),
            "download",
            "the archive that it names, with its signatures",
        ),
        (
            "alpine:3.20",
            ("--mirror", "SITE", "--keyring", "KEYRING", "--arch", "arm64"),
            "check",
            "its signature, by the keys of ",
        ),
    ],
)
def test_sources(
    source: str, options: tuple[str, ...], about: str, words: str, planner: Planner
) -> None:
    assert words in planner.lines("tree", source, *options)[about]


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("tree", (), "a directory"),
        ("tree.tar.zst", (), "an archive"),
        ("card.img", (), "an image with the layout gpt, of what the tree needs"),
        ("card", ("--layout", "rpi", "--size", "2G"), "layout rpi, of 2.0 GiB"),
    ],
)
def test_targets(target: str, options: tuple[str, ...], words: str, planner: Planner) -> None:
    found = planner.lines(target, planner.given, *options)
    assert found["make"].startswith(f"{planner.place}/{target}: ")
    assert words in found["make"]
    assert found["unpack"] == planner.given


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("root", "as they are there, and device nodes, too"),
        ("range", "shifted into your subordinate ids; no device nodes"),
        ("plain", "you alone, who have no subordinate ids (xbuild doctor); no device nodes"),
    ],
)
def test_whose_files_they_are(
    kind: Kind, words: str, runner_of: Callable[[Kind], Runner], new_place: NewPlace
) -> None:
    runner = runner_of(kind)
    place = new_place(runner.user)
    source = write(place, "a.tar", make_tar(busybox("arm64")))
    done = create(runner, f"{place}/tree", source, "--dry-run")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("owners"))
    assert line.endswith(words)


@pytest.mark.parametrize(
    ("target", "source", "words"),
    [
        ("a.tar", "a.tar", "a.tar exists already"),
        ("nowhere/tree", "a.tar", "nowhere/tree: No such file or directory"),
        ("closed/tree", "a.tar", "closed/tree: Permission denied"),
        ("tree", "b.tar", "No such file: "),
        ("tree", "http://server.example/b.tar", "over plain http, anybody in between"),
        ("tree", "alpine:3.20", "no keyring was named"),
        ("tree", "docker.example/image", "image of a registry is docker://docker.example/image"),
    ],
)
def test_what_would_be_refused(target: str, source: str, words: str, planner: Planner) -> None:
    """It is refused as if it were done."""
    os.mkdir(f"{planner.place}/closed", 0o555)
    if source.endswith(".tar") and "://" not in source:
        source = f"{planner.place}/{source}"
    done = planner.plan(target, source)
    assert (done.returncode, done.stdout) == (125, "")
    assert words in done.stderr
    again = create(planner.runner, f"{planner.place}/{target}", source)
    assert again.stderr == done.stderr


def test_one_id_is_not_enough_for_a_distribution(single: Runner, new_place: NewPlace) -> None:
    done = create(single, f"{new_place(single.user)}/tree", "debian:bookworm", "--dry-run")
    assert done.returncode == 125
    assert "you have one user id" in done.stderr
