"""``xbuild create TARGET --from debian:SUITE``: configured trees, and mirrors that fail."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.capability import require
from tests.integration.test_create_tarball import create
from tests.loopback import Site
from tests.openpgp import Signer
from tests.patience import WORK_S
from tests.runs import Runner
from tests.users import User
from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath, replace
from xbuild.source import apt
from xbuild.source.bootstrap import bootstrap
from xbuild.source.kinds import Suite

NewPlace = Callable[[User], HostPath]


def test_a_configured_tree(ranged: Runner, new_place: NewPlace, tree_store: object) -> None:
    """As an ordinary user: packages are configured, their users there, and the host as it was."""
    tree = f"{new_place(ranged.user)}/tree"
    options = ("--arch", "arm64", "--variant", "essential", "--include", "less,hostname")
    argv = ("create", tree, "--from", "debian:bookworm", *options)
    done = ranged.command(*argv, timeout_s=WORK_S)
    require("mirror", "mirror" not in done.stderr, done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tree}: arm64, Debian GNU/Linux 12 (bookworm)\n"
    script = """
        dpkg-query -W -f '${Package} ${db:Status-Status}\\n' | grep -vc ' installed$'
        dpkg-query -W -f '${Package}\\n' less
        ls /etc/apt/apt.conf.d
        grep -o 'bookworm-[a-z]* main$' /etc/apt/sources.list
        stat -c %G /var/mail
        dpkg --print-architecture"""
    seen = ranged.run(tree, "--", "sh", "-c", script).stdout.split()
    assert seen[:2] == ["0", "less"]
    assert "00xbuild-create" not in seen
    assert seen[-6:] == ["bookworm-updates", "main", "bookworm-security", "main", "mail", "arm64"]
    assert os.listdir(os.path.dirname(tree)) == ["tree"]


def test_one_id_is_not_enough(single: Runner, new_place: NewPlace) -> None:
    place = new_place(single.user)
    done = create(single, f"{place}/tree", "debian:bookworm", "--arch", "arm64")
    assert done.returncode == 125
    assert "you have one user id\nhint: as root: usermod --add-subuids " in done.stderr
    assert os.listdir(place) == []


def test_a_mirror_out_of_step_is_tried_again(
    site: Site, keys: Signer, root: Runner, new_place: NewPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists what it does not have: said, tried again a number of times, and explained."""
    monkeypatch.setattr(apt, "RETRY_DELAYS_S", (0.0, 0.0))
    offer(site, keys)
    place = new_place(root.user)
    said: list[str] = []
    suite = suite_of(site, keys.keyring("good"))
    with pytest.raises(
        MirrorUnavailable, match="does not serve debian:bookworm for arm64"
    ) as error:
        bootstrap(suite, place, lambda text, _: said.append(text))
    assert "in the middle of an update" in error.value.hint
    assert "NO_PUBKEY" not in error.value.message
    assert "Packages" in error.value.message
    assert said.count("trying again in 0 s") == 2
    assert site.fetches("/debian/dists/bookworm/InRelease") == 3
    assert not os.path.exists(f"{place}/tree/usr")


def test_a_suite_that_a_mirror_does_not_have(
    site: Site, keys: Signer, root: Runner, new_place: NewPlace
) -> None:
    """It is not asked again, and said once."""
    said: list[str] = []
    with pytest.raises(MirrorUnavailable, match="does not have a Release file") as error:
        bootstrap(
            suite_of(site, keys.keyring("good")),
            new_place(root.user),
            lambda text, _: said.append(text),
        )
    assert error.value.hint.startswith("is that the suite's name?")
    assert said == ["debian:bookworm arm64: running apt-get update"]


def test_an_architecture_that_a_suite_does_not_have(
    site: Site, keys: Signer, root: Runner, new_place: NewPlace
) -> None:
    offer(site, keys)
    said: list[str] = []
    suite = replace(suite_of(site, keys.keyring("good")), architecture="riscv64")
    with pytest.raises(MirrorUnavailable, match="no packages of that architecture") as error:
        bootstrap(suite, new_place(root.user), lambda text, _: said.append(text))
    assert "a newer suite may have it" in error.value.hint
    assert "trying again" not in "".join(said)


def offer(site: Site, keys: Signer) -> None:
    """Have a mirror list packages that it does not have."""
    text = (
        "Origin: Debian\nSuite: stable\nCodename: bookworm\nArchitectures: arm64\n"
        "Components: main\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n"
        f" {'1' * 64} 100 main/binary-arm64/Packages\n"
    )
    site.files["/debian/dists/bookworm/InRelease"] = keys.sign_text("good", text.encode())


def test_a_mirror_signed_by_another_key(
    site: Site, keys: Signer, root: Runner, new_place: NewPlace
) -> None:
    offer(site, keys)
    place = new_place(root.user)
    with pytest.raises(MirrorUnavailable, match=r"NO_PUBKEY|is not signed"):
        bootstrap(suite_of(site, keys.keyring("other")), place, lambda *_: None)
    assert not os.path.exists(f"{place}/tree/usr")


def suite_of(site: Site, keyring: HostPath) -> Suite:
    mirror = f"{site.url}/debian"
    return Suite("debian", "bookworm", "arm64", "essential", (), mirror, keyring)


def test_a_mirror_that_cannot_be_reached(ranged: Runner, new_place: NewPlace) -> None:
    place = new_place(ranged.user)
    options = ("--mirror", "http://127.0.0.1:9/debian", "--arch", "arm64")
    done = create(ranged, f"{place}/tree", "debian:bookworm", *options)
    assert done.returncode == 125
    assert "Cannot reach the mirror http://127.0.0.1:9/debian" in done.stderr
    assert "check the network" in done.stderr
    assert os.listdir(place) == []


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("debian:book worm", (), "is no suite"),
        ("debian:", (), "is no suite"),
        ("ubuntu:noble", ("--mirror", "deb [trusted=yes] http://x/ y main"), "is no mirror"),
        ("debian:bookworm", ("--include", "a;b"), "is no package's name"),
        ("debian:bookworm", ("--variant", "huge"), "huge"),
        ("debian:bookworm", ("--sha256", "0" * 64), "--sha256 does not go with"),
        ("debian:bookworm", ("--arch", "pdp11"), "pdp11"),
    ],
)
def test_wrong_words(
    source: str, options: tuple[str, ...], words: str, single: Runner, new_place: NewPlace
) -> None:
    place = new_place(single.user)
    done = create(single, f"{place}/tree", source, *options)
    assert done.returncode in (2, 125)
    assert words in done.stderr
    assert os.listdir(place) == []
