"""``xbuild create TARGET --from ubuntu:SUITE``: archives, updates, components and keys of Ubuntu.

Made from an archive on the loopback interface, see tests/bootstrap_archive.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.bootstrap_archive import (
    CODENAME,
    Maker,
    make_package,
    publish_ubuntu,
    readable_keyring,
)
from tests.loopback import Site
from tests.openpgp import Signer
from tests.runs import Kind

KEYRING = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
COMPONENTS = "main restricted universe multiverse"
ESSENTIAL = ("--variant", "essential")


def test_tree_of_a_named_mirror(
    maker_of: Callable[[Kind], Maker],
    site: Site,
    keys: Signer,
    debs_of: Callable[[str], tuple[str, ...]],
) -> None:
    """As root, for a foreign architecture: from universe, with updates, and then not tied to it."""
    maker = maker_of("root")
    first, update, newest = (
        make_package(maker.place, "greeter", number) for number in ("1.0", "1.1", "1.2")
    )
    place = publish_ubuntu(
        site,
        keys,
        debs_of("arm64"),
        "arm64",
        universe=(first,),
        updates=(update,),
        security=(newest,),
    )
    mirror = f"{site.url}{place}"
    options = ("--mirror", mirror, "--keyring", maker.keyring, "--include", "greeter")
    planned = maker.create("--arch", "arm64", *ESSENTIAL, *options, "--dry-run")
    assert (planned.returncode, planned.stderr, site.asked) == (0, "", [])
    done = maker.create("--arch", "arm64", *ESSENTIAL, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{maker.tree}: arm64, ")
    assert maker.sources() == [
        f"deb {mirror} {CODENAME} {COMPONENTS}",
        f"deb {mirror} {CODENAME}-updates {COMPONENTS}",
        f"deb {mirror} {CODENAME}-security {COMPONENTS}",
    ]
    sources = [line for line in planned.stdout.splitlines() if line.startswith("source")]
    assert [line.partition(" ")[2].strip() for line in sources] == maker.sources()
    script = """
        dpkg-query -W -f '${Package} ${db:Status-Status}\\n' | grep -vc ' installed$'
        cat /srv/greeter; dpkg --print-architecture"""
    seen = maker.runner.run(maker.tree, "--", "sh", "-c", script).stdout.split()
    assert seen == ["0", "1.2", "arm64"]
    assert all(path.startswith("/ubuntu-ports/") for path, _ in site.asked)
    assert os.listdir(maker.own) == ["tree"]


@pytest.mark.parametrize(
    ("architecture", "archive", "security"),
    [
        ("amd64", "http://archive.ubuntu.com/ubuntu", "http://security.ubuntu.com/ubuntu"),
        ("arm64", "http://ports.ubuntu.com/ubuntu-ports", "http://ports.ubuntu.com/ubuntu-ports"),
    ],
)
def test_tree_of_ubuntu_s_own_archives(
    architecture: str,
    archive: str,
    security: str,
    maker_of: Callable[[Kind], Maker],
    site: Site,
    keys: Signer,
    debs_of: Callable[[str], tuple[str, ...]],
) -> None:
    """As an ordinary user, who names neither mirror nor keys; a proxy stands for the servers."""
    maker = maker_of("range")
    publish_ubuntu(site, keys, debs_of(architecture), architecture)
    done = maker.create(
        *("--arch", architecture, *ESSENTIAL),
        http_proxy=site.url,
        XBUILD_UBUNTU_KEYRING=maker.keyring,
    )
    assert done.returncode == 0, done.stderr
    assert maker.sources() == [
        f"deb {archive} {CODENAME} {COMPONENTS}",
        f"deb {archive} {CODENAME}-updates {COMPONENTS}",
        f"deb {security} {CODENAME}-security {COMPONENTS}",
    ]
    seen = maker.runner.output(maker.tree, "--", "dpkg", "--print-architecture")
    assert seen == f"{architecture}\n"
    left = subprocess.run(["grep", "-rl", site.url, f"{maker.tree}/etc"], capture_output=True)
    assert not left.stdout, "the proxy of this host is not the tree's"


def refused(maker: Maker, done: subprocess.CompletedProcess[str]) -> str:
    """Return what was said, of a tree that was not made and left nothing."""
    assert done.returncode == 125, done.stderr
    assert os.listdir(maker.own) == []
    assert "trying again" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("kind", ["root", "range"])
def test_archive_signed_by_another_key(
    kind: Kind, maker_of: Callable[[Kind], Maker], site: Site, keys: Signer
) -> None:
    maker = maker_of(kind)
    mirror = f"{site.url}{publish_ubuntu(site, keys, (), 'arm64', key='other')}"
    done = maker.create("--arch", "arm64", "--mirror", mirror, "--keyring", maker.keyring)
    said = refused(maker, done)
    assert "NO_PUBKEY" in said
    assert "name a keyring with its key, where you trust that" in said


def test_keys_that_this_host_trusts_do_not_count(
    maker_of: Callable[[Kind], Maker], site: Site, keys: Signer
) -> None:
    """A keyring that is named stands in place of all others."""
    maker = maker_of("root")
    mirror = f"{site.url}{publish_ubuntu(site, keys, (), 'arm64', key='other')}"
    trusted = f"{maker.place}/trusted"
    os.mkdir(trusted)
    readable_keyring(keys, "other", trusted)
    script = f'mount --bind {trusted} /etc/apt/trusted.gpg.d && exec "$@"'
    options = ("--arch", "arm64", "--mirror", mirror, "--keyring", maker.keyring)
    argv = ["unshare", "-m", "sh", "-c", script, "sh", *maker.argv(*options)]
    assert "NO_PUBKEY" in refused(maker, maker.runner.user.run(argv))


@pytest.mark.parametrize("kind", ["root", "range"])
def test_no_keys_of_ubuntu(kind: Kind, maker_of: Callable[[Kind], Maker], site: Site) -> None:
    """They are this host's package's; nothing is asked for without."""
    maker = maker_of(kind)
    os.mkdir(f"{maker.place}/empty")
    script = f'mount --bind {maker.place}/empty /usr/share/keyrings && exec "$@"'
    argv = maker.runner.user.argv(maker.argv("--mirror", site.url))
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *argv],
        env=maker.runner.user.environment(),
        cwd=maker.own,
        capture_output=True,
        text=True,
    )
    said = refused(maker, done)
    assert f"{KEYRING} is not there" in said
    assert "ubuntu-keyring" in said
    assert "--keyring" in said
    assert not site.asked


def test_keyring_that_is_not_there(maker_of: Callable[[Kind], Maker], site: Site) -> None:
    maker = maker_of("range")
    done = maker.create("--mirror", site.url, "--keyring", "/nonexistent")
    assert "Cannot read the keyring /nonexistent: No such file" in refused(maker, done)
    assert not site.asked


def test_mirror_without_updates(
    maker_of: Callable[[Kind], Maker], site: Site, keys: Signer
) -> None:
    """A tree would not get any either: it is not made, whatever else the mirror has."""
    maker = maker_of("range")
    mirror = f"{site.url}{publish_ubuntu(site, keys, (), 'arm64')}"
    del site.files[f"/ubuntu-ports/dists/{CODENAME}-updates/InRelease"]
    done = maker.create("--arch", "arm64", "--mirror", mirror, "--keyring", maker.keyring)
    said = refused(maker, done)
    assert f"{CODENAME}-updates Release' does not have a Release file" in said
    assert "has the mirror all of it, with updates?" in said


def test_suites_have_names(maker_of: Callable[[Kind], Maker]) -> None:
    maker = maker_of("range")
    done = maker.runner.command("create", maker.tree, "--from", "ubuntu:24.04")
    assert done.returncode == 2
    assert "hint: such as ubuntu:noble" in done.stderr
