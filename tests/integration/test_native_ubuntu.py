"""Native tools for an Ubuntu tree, from an archive on the loopback interface laid out as Ubuntu's.

The packages in it are Debian's, of the tree's revisions: no Ubuntu was at hand. What is Ubuntu's
own is tested: two archives, suites for updates and security in each, sources, keys.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apt_archive import publish
from tests.capability import require
from tests.loopback import Fault, Site, served
from tests.openpgp import Signer, signer
from tests.runs import Runner
from tests.trees import TreeStore
from xbuild.errors import MirrorUnavailable
from xbuild.native.installed import read_database
from xbuild.native.prepare import prepare
from xbuild.record import HostPath
from xbuild.source import apt
from xbuild.source.apt import Apt, download
from xbuild.source.cache import cache_directory
from xbuild.source.mirror import find_mirrors
from xbuild.tree.resolve import DirectoryReader

pytestmark = pytest.mark.usefixtures("host_untouched")

PACKAGES = ("dash", "sed")
SOURCES = """\
Types: deb
URIs: {url}/ubuntu-ports
Suites: noble noble-updates noble-security
Components: main universe
"""
OS_RELEASE = "NAME=Ubuntu\nID=ubuntu\nVERSION_ID=24.04\nVERSION_CODENAME=noble\n"


@pytest.fixture(scope="module")
def keys() -> Iterator[Signer]:
    with signer() as made:
        made.make_key("ubuntu")
        made.make_key("stranger")
        yield made


@pytest.fixture(scope="module")
def debs(place: HostPath, tree_store: TreeStore) -> tuple[str, ...]:
    """Packages for this host of the tree's revisions, with all that they depend on."""
    with DirectoryReader(tree_store.shared("arm64")) as reader:
        database = read_database(reader)
    assert database is not None
    wanted = []
    for name in PACKAGES:
        package = database.named(name)
        assert package is not None
        wanted.append(f"{name}={package.version}")
    pool = HostPath(f"{cache_directory()}/test-native-downloads")
    os.makedirs(pool, exist_ok=True)
    alternatives = tuple(
        Apt(HostPath(f"{place}/apt-{number}"), pool, "amd64", "bookworm", mirror)
        for number, mirror in enumerate(find_mirrors())
    )
    try:
        return download(alternatives, tuple(wanted), lambda _text, _fraction: None)
    except MirrorUnavailable as error:
        require("mirror", False, error.message)
        raise


class Ubuntu:
    """A tree of "Ubuntu", the archive that it is from, and a cache of native tools."""

    def __init__(self, tree: HostPath, site: Site, home: str) -> None:
        self.tree = tree
        self.site = site
        self.home = home
        with open(f"{tree}/usr/lib/os-release", "w", encoding="utf-8") as file:
            file.write(OS_RELEASE)
        os.makedirs(f"{tree}/etc/apt/sources.list.d", exist_ok=True)
        with open(f"{tree}/etc/apt/sources.list.d/ubuntu.sources", "w", encoding="utf-8") as file:
            file.write(SOURCES.format(url=site.url))

    def prepare(self, keyring: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "XDG_CACHE_HOME": self.home, "XBUILD_UBUNTU_KEYRING": keyring}
        environment.pop("XBUILD_UBUNTU_MIRROR", None)
        return subprocess.run(
            [sys.executable, "-m", "xbuild", "native", "prepare", self.tree],
            env=environment,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def ubuntu(root: Runner, tmp_path: Path) -> Iterator[Ubuntu]:
    tree = HostPath(f"{tmp_path}/tree")
    shutil.copytree(root.tree("arm64"), tree, symlinks=True)
    with served() as site:
        yield Ubuntu(tree, site, str(tmp_path / "cache"))


def test_tools_come_from_the_archive_of_this_host_s_architecture(
    ubuntu: Ubuntu, keys: Signer, debs: tuple[str, ...], root: Runner
) -> None:
    """Those of the revisions that an upgraded tree has are in the suite for updates."""
    sed = tuple(deb for deb in debs if "/sed_" in deb)
    others = tuple(deb for deb in debs if deb not in sed)
    for suite, chosen in (("noble", others), ("noble-updates", sed), ("noble-security", ())):
        publish(ubuntu.site, "/ubuntu", suite, chosen, keys, key="ubuntu")
    done = ubuntu.prepare(keys.keyring("ubuntu", is_armoured=False))
    assert done.returncode == 0, done.stderr
    environment = root.user.environment(XDG_CACHE_HOME=ubuntu.home)
    shown = subprocess.run(
        [sys.executable, "-m", "xbuild", "native", "list", "--json"],
        env={**os.environ, "XDG_CACHE_HOME": ubuntu.home},
        capture_output=True,
        text=True,
        check=True,
    )
    (found,) = json.loads(shown.stdout)["sets"]
    assert found["provider"] == "Ubuntu noble packages for amd64"
    exact = {tool["path"] for tool in found["tools"] if tool["level"] == "exact"}
    assert {"/usr/bin/dash", "/usr/bin/sed"} <= exact
    done = root.run(
        "--native", ubuntu.tree, "--", "/bin/sh", "-c", "readlink /proc/$$/exe", env=environment
    )
    assert done.stdout.startswith("/run/xbuild/native/")
    assert ubuntu.site.asked
    assert all(path.startswith("/ubuntu/") for path, _ in ubuntu.site.asked)


def test_archive_that_another_key_signed_is_refused(
    ubuntu: Ubuntu, keys: Signer, debs: tuple[str, ...]
) -> None:
    for suite in ("noble", "noble-updates", "noble-security"):
        publish(ubuntu.site, "/ubuntu", suite, debs, keys, key="stranger")
    done = ubuntu.prepare(keys.keyring("ubuntu", is_armoured=False))
    assert done.returncode == 125
    assert "The Ubuntu mirror" in done.stderr
    assert "NO_PUBKEY" in done.stderr
    assert not os.path.exists(f"{ubuntu.home}/xbuild/native/sets") or not os.listdir(
        f"{ubuntu.home}/xbuild/native/sets"
    )


def test_archive_that_is_out_of_step_is_asked_again(
    ubuntu: Ubuntu, keys: Signer, debs: tuple[str, ...]
) -> None:
    """Its lists name packages that it does not have yet, as in the middle of an update."""
    for suite in ("noble", "noble-updates", "noble-security"):
        publish(ubuntu.site, "/ubuntu", suite, debs if suite == "noble" else (), keys, key="ubuntu")
    (late,) = (path for path in ubuntu.site.files if "/pool/sed_" in path)
    ubuntu.site.faults[late] = Fault(status=404, times=6)
    done = ubuntu.prepare(keys.keyring("ubuntu", is_armoured=False))
    assert done.returncode == 0, done.stderr
    assert "The Ubuntu mirror" in done.stderr
    assert "does not serve" in done.stderr
    assert "trying again" in done.stderr


def test_archive_whose_lists_are_of_another_state_leaves_no_set(
    ubuntu: Ubuntu, keys: Signer, debs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "RETRY_DELAYS_S", (0.0,))
    for suite in ("noble", "noble-updates", "noble-security"):
        publish(ubuntu.site, "/ubuntu", suite, debs, keys, key="ubuntu")
    ubuntu.site.files["/ubuntu/dists/noble/main/binary-amd64/Packages"] += b"\n"
    monkeypatch.setenv("XDG_CACHE_HOME", ubuntu.home)
    monkeypatch.setenv("XBUILD_UBUNTU_KEYRING", keys.keyring("ubuntu", is_armoured=False))
    with pytest.raises(MirrorUnavailable) as caught:
        prepare(ubuntu.tree, progress=lambda _text, _fraction: None)
    assert "does not serve noble for amd64" in caught.value.message
    assert os.listdir(f"{ubuntu.home}/xbuild/native/sets") == []
