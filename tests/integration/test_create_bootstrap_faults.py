"""``xbuild create`` where packages or the disk fail: said with a hint, and nothing is left."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable

import pytest

from tests.bootstrap_archive import Maker, make_package, publish_ubuntu
from tests.loopback import Fault, Site
from tests.openpgp import Signer
from tests.patience import WORK_S
from tests.runs import Kind, Runner
from tests.users import User
from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath
from xbuild.source import apt
from xbuild.source.bootstrap import bootstrap
from xbuild.source.kinds import Suite

MakerOf = Callable[[Kind], Maker]
DebsOf = Callable[[str], tuple[str, ...]]
MIB = 1 << 20
# Of this machine's own architecture in most places: it is quick, and no part of this is emulation.
ARCHITECTURE = "amd64"
BROKEN = 'echo "no such thing: $1"; exit 3'


def options_for(maker: Maker, site: Site, place: str) -> tuple[str, ...]:
    mirror = ("--mirror", f"{site.url}{place}", "--keyring", maker.keyring)
    return ("--arch", ARCHITECTURE, "--variant", "essential", *mirror)


def test_packages_that_do_not_exist(
    maker_of: MakerOf, site: Site, keys: Signer, debs_of: DebsOf
) -> None:
    """They are named before any package is configured, which takes minutes when emulated."""
    maker = maker_of("range")
    place = publish_ubuntu(site, keys, debs_of(ARCHITECTURE), ARCHITECTURE)
    done = maker.create(*options_for(maker, site, place), "--include", "nothing,tar,nobody")
    assert done.returncode == 125
    assert "Unable to locate package nothing; Unable to locate package nobody" in done.stderr
    assert "hint: is that its name in that suite" in done.stderr
    assert "installing" not in done.stderr
    assert "trying again" not in done.stderr
    assert os.listdir(maker.own) == []


def test_package_that_the_mirror_lists_and_lacks(
    maker_of: MakerOf,
    site: Site,
    keys: Signer,
    debs_of: DebsOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mirror out of step is one for packages to include as well."""
    monkeypatch.setattr(apt, "RETRY_DELAYS_S", (0.0,))
    maker = maker_of("root")
    late = make_package(maker.place, "late", "1.0")
    place = publish_ubuntu(site, keys, debs_of(ARCHITECTURE), ARCHITECTURE, universe=(late,))
    (path,) = (path for path in site.files if "/pool/late" in path)
    site.faults[path] = Fault(status=404)
    suite = Suite(
        *("ubuntu", "noble", ARCHITECTURE, "essential", ("late",)),
        f"{site.url}{place}",
        maker.keyring,
    )
    said: list[str] = []
    with pytest.raises(MirrorUnavailable, match=r"Failed to fetch .*late.* 404") as error:
        bootstrap(suite, maker.own, lambda text, _: said.append(text))
    assert "in the middle of an update" in error.value.hint
    assert said.count("trying again in 0 s") == 1
    assert not any("installing" in text for text in said)


def test_script_of_a_package_that_fails(
    maker_of: MakerOf, site: Site, keys: Signer, debs_of: DebsOf
) -> None:
    """It is named, with what it said; no other mirror would do better."""
    maker = maker_of("range")
    broken = make_package(maker.place, "broken", "1.0", postinst=BROKEN)
    place = publish_ubuntu(site, keys, debs_of(ARCHITECTURE), ARCHITECTURE, universe=(broken,))
    done = maker.create(*options_for(maker, site, place), "--include", "broken,tar")
    assert done.returncode == 125
    assert (
        "Cannot make ubuntu:noble for amd64: broken: installed broken package post-installation"
        " script subprocess returned error exit status 3\n"
        "hint: its last words: no such thing: configure\n"
    ) in done.stderr
    assert "trying again" not in done.stderr
    assert os.listdir(maker.own) == []


def in_small_place(
    runner: Runner, place: HostPath, options: str, argv: list[str]
) -> subprocess.CompletedProcess[str]:
    """Run a create into ``place``/own while that is a file system of such options.

    Its temporary files go to ``place``/tmp. Afterwards neither has anything.
    """
    user = runner.user
    os.makedirs(f"{place}/own", exist_ok=True)
    os.mkdir(f"{place}/tmp")
    os.chown(f"{place}/tmp", user.uid, user.gid)
    options = f"{options},uid={user.uid},gid={user.gid},mode=755"
    script = f'own="{place}/own"; mount -t tmpfs -o {options} none "$own" && "$@"; status=$?'
    script += '; ls -A "$own"; grep -c " $own" /proc/self/mountinfo; exit $status'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *user.argv(argv)],
        env=user.environment(TMPDIR=f"{place}/tmp"),
        cwd=user.home,
        capture_output=True,
        text=True,
        timeout=WORK_S,
    )
    assert done.returncode == 125, done.stderr
    assert "hint: make room, or name a target on another file system" in done.stderr
    assert done.stdout == "1\n", "what is there besides the file system that the test mounted"
    assert os.listdir(f"{place}/tmp") == []
    return done


def test_no_room_for_a_distribution(
    maker_of: MakerOf, site: Site, keys: Signer, debs_of: DebsOf
) -> None:
    """That is looked at first."""
    maker = maker_of("range")
    argv = maker.argv(*options_for(maker, site, "/ubuntu"))
    done = in_small_place(maker.runner, maker.place, "size=200m", argv)
    assert f"less than 256 MiB are left in {maker.own}" in done.stderr
    assert not site.asked


def test_no_room_for_an_essential_package(
    maker_of: MakerOf, site: Site, keys: Signer, debs_of: DebsOf
) -> None:
    """It fails while the packages are unpacked, before any is configured."""
    maker = maker_of("root")
    big = make_package(maker.place, "big", "1.0", more="Essential: yes\n", size=300 * MIB)
    place = publish_ubuntu(site, keys, (*debs_of(ARCHITECTURE), big), ARCHITECTURE)
    argv = maker.argv(*options_for(maker, site, place))
    done = in_small_place(maker.runner, maker.place, "size=300m", argv)
    assert f"no room is left in {maker.own}: " in done.stderr
    assert "extracting archives\nxbuild: " in done.stderr


def test_no_room_for_a_package_to_include(
    maker_of: MakerOf, site: Site, keys: Signer, debs_of: DebsOf
) -> None:
    """It fails when others are configured already."""
    maker = maker_of("range")
    big = make_package(maker.place, "big", "1.0", size=300 * MIB)
    place = publish_ubuntu(site, keys, debs_of(ARCHITECTURE), ARCHITECTURE, universe=(big,))
    argv = maker.argv(*options_for(maker, site, place), "--include", "big")
    done = in_small_place(maker.runner, maker.place, "size=300m", argv)
    assert f"no room is left in {maker.own}: " in done.stderr
    assert "No space left on device" in done.stderr


@pytest.fixture(scope="module")
def large(reachable_directory: HostPath) -> HostPath:
    """An archive of a tree that cannot be made smaller: 280 MiB."""
    path = HostPath(f"{reachable_directory}/large.tar")
    with tarfile.open(path, "w") as archive:
        for number in range(28):
            member = tarfile.TarInfo(f"blob{number}")
            member.size = 10 * MIB
            archive.addfile(member, io.BytesIO(os.urandom(member.size)))
    os.chmod(path, 0o644)
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("t.img", "Cannot build the image: less than 5"),
        ("t.tar", "t.tar: cat: write error: No space left on device"),
        ("t.tar.zst", "t.tar.zst: zstd: error 70 : Write error"),
    ],
)
@pytest.mark.parametrize("kind", ["root", "range"])
def test_no_room_beside_the_tree(
    kind: Kind,
    name: str,
    words: str,
    large: HostPath,
    runner_of: Callable[[Kind], Runner],
    new_place: Callable[[User], HostPath],
) -> None:
    """A tree for an image or an archive fits, and that itself does not."""
    runner = runner_of(kind)
    place = new_place(runner.user)
    argv = [*runner.xbuild, "create", f"{place}/own/{name}", "--from", large]
    done = in_small_place(runner, place, "size=540m", argv)
    assert words in done.stderr
    assert ".xbuild-create" not in done.stderr
