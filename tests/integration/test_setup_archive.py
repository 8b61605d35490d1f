"""``xbuild setup`` without root, from an archive on the loopback interface that apt is shown.

The host's sources are covered in a mount namespace; the packages hold this host's own qemu.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.apt_archive import publish
from tests.loopback import Site, served
from tests.openpgp import Signer, signer
from tests.patience import WORK_S
from tests.runs import Runner
from xbuild.binary.arch import arch_named, host_arch
from xbuild.emulation.interpreters import find_interpreter
from xbuild.record import HostPath

pytestmark = pytest.mark.usefixtures("need_root")

CONTROL = """\
Package: qemu-user-static
Version: 1:7.2.22+test-1
Architecture: {architecture}
Maintainer: test <test@example.org>
Description: interpreters
"""
# Sources and nothing else of the host's apt; then the user's rights.
WITH_SOURCES = """
mount -t tmpfs none /etc/apt/sources.list.d
printf '%s\\n' "$SOURCE" >/etc/apt/sources.list.d/test.list
test ! -e /etc/apt/sources.list || mount --bind /dev/null /etc/apt/sources.list
test -z "$SMALL" || mount -t tmpfs -o mode=1777,size=8m none "$SMALL"
exec "$@"
"""


class Archive:
    """A signed archive, and an ordinary user whose apt has it alone."""

    def __init__(self, site: Site, keys: Signer, runner: Runner, place: HostPath) -> None:
        self.site, self.runner, self.cache = site, runner, f"{runner.user.home}/setup-cache"
        self._keys, self._place = keys, place
        self._keyring = shutil.copy(keys.keyring("good"), f"{place}/trusted.asc")
        os.chmod(self._keyring, 0o644)

    def publish(self, program: str, *, key: str = "good") -> None:
        """Offer a package with ``program`` as its interpreter for arm64."""
        tree, own = f"{self._place}/package", host_arch().debian
        assert own is not None
        os.makedirs(f"{tree}/DEBIAN")
        os.makedirs(f"{tree}/usr/bin")
        shutil.copy(program, f"{tree}/usr/bin/qemu-aarch64-static")
        with open(f"{tree}/DEBIAN/control", "w", encoding="utf-8") as file:
            file.write(CONTROL.format(architecture=own))
        deb = f"{self._place}/qemu-user-static_7.2.22_{own}.deb"
        subprocess.run(
            ["dpkg-deb", "-Znone", "--build", tree, deb], check=True, capture_output=True
        )
        publish(self.site, "/archive", "test", (deb,), self._keys, key=key, architecture=own)

    def setup(self, *, small: str = "") -> subprocess.CompletedProcess[str]:
        """Run ``xbuild setup arm64`` as the ordinary user."""
        environment = self.runner.user.environment(XDG_CACHE_HOME=self.cache)
        source = f"deb [signed-by={self._keyring}] {self.site.url}/archive test main"
        words = self.runner.user.argv([*self.runner.xbuild, "setup", "arm64"])
        return subprocess.run(
            [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-ec",
                WITH_SOURCES,
                "sh",
                *words,
            ],
            capture_output=True,
            text=True,
            cwd="/",
            env={**environment, "SOURCE": source, "SMALL": small},
            timeout=WORK_S,
            check=False,
        )

    def kept(self) -> list[str]:
        """Return the versions in the cache."""
        place = f"{self.cache}/xbuild/qemu"
        return [name for name in os.listdir(place) if name != "lock"]


@pytest.fixture
def archive(ranged: Runner, reachable_directory: HostPath) -> Iterator[Archive]:
    place = HostPath(f"{reachable_directory}/setup-archive")
    os.mkdir(place, 0o755)
    with served() as site, signer() as keys:
        made = Archive(site, keys, ranged, place)
        yield made
    shutil.rmtree(place)
    shutil.rmtree(made.cache, ignore_errors=True)


def qemu() -> str:
    return find_interpreter(arch_named("aarch64")).path


def test_package_of_the_hosts_sources_is_fetched_and_used(archive: Archive) -> None:
    archive.publish(qemu())
    done = archive.setup()
    assert done.returncode == 0, done.stderr
    assert "(qemu-user-static 1:7.2.22+test-1)" in done.stdout
    (version,) = archive.kept()
    assert sorted(os.listdir(f"{archive.cache}/xbuild/qemu/{version}")) == [
        "origin.json",
        "qemu-aarch64",
    ]
    runner = archive.runner
    own = f"{archive.cache}/xbuild/qemu/{version}/qemu-aarch64"
    assert runner.output("--interpreter", own, runner.tree("arm64"), "uname", "-m") == "aarch64\n"


def test_second_fetch_of_a_version_takes_its_place(archive: Archive) -> None:
    archive.publish(qemu())
    assert archive.setup().returncode == 0
    assert archive.setup().returncode == 0
    assert len(archive.kept()) == 1


def test_tampered_package_is_refused(archive: Archive) -> None:
    archive.publish(qemu())
    (path,) = (path for path in archive.site.files if path.endswith(".deb"))
    content = bytearray(archive.site.files[path])
    content[len(content) // 2] ^= 1
    archive.site.files[path] = bytes(content)
    done = archive.setup()
    assert (done.returncode, archive.kept()) == (125, []), done.stdout
    assert "Hash Sum mismatch" in done.stderr


def test_archive_of_a_stranger_is_refused(archive: Archive) -> None:
    archive.publish(qemu(), key="other")
    done = archive.setup()
    assert (done.returncode, archive.kept()) == (125, []), done.stdout


def test_interpreter_that_does_not_work_is_not_kept(archive: Archive) -> None:
    archive.publish("/bin/true")
    done = archive.setup()
    assert (done.returncode, archive.kept()) == (125, []), done.stdout
    assert "does not serve: " in done.stderr


def test_full_disk_is_named(archive: Archive) -> None:
    archive.publish(qemu())
    os.mkdir(archive.cache, 0o777)
    done = archive.setup(small=archive.cache)
    assert done.returncode == 125
    assert "make room there" in done.stderr
