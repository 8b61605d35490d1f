"""``xbuild create`` from Gentoo's and Alpine's mirrors: signed, or not at all."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.crafted import busybox, make_tar
from tests.loopback import Fault, Site
from tests.openpgp import Signer
from tests.patience import WORK_S
from tests.release_mirrors import (
    LATEST,
    MINIROOTFS,
    RELEASES,
    STAGE3,
    VARIANT,
    publish_minirootfs,
    publish_stage3,
)
from tests.runs import Runner
from tests.trees import TreeStore
from tests.users import User
from xbuild.record import HostPath, Record

SMALL = make_tar(busybox("arm64"))
STAGE3_OF_IT = lzma.compress(SMALL, preset=0)
MINIROOTFS_OF_IT = gzip.compress(SMALL, mtime=0)


class Buyer(Record):
    """Somebody who makes trees of a mirror, in a place with a cache of its own."""

    runner: Runner
    site: Site
    place: HostPath
    keyring: HostPath

    def create(self, source: str, *options: str) -> subprocess.CompletedProcess[str]:
        words = ["create", f"{self.place}/tree", "--from", source, "--mirror", self.site.url]
        environment = self.runner.user.environment(XDG_CACHE_HOME=f"{self.place}/cache")
        return self.runner.command(*words, *options, env=environment, timeout_s=WORK_S)

    def signed(self, source: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Create with the right keyring."""
        return self.create(source, "--keyring", self.keyring, *options)

    def assert_refused(self, done: subprocess.CompletedProcess[str], *words: str) -> None:
        assert done.returncode == 125, done.stderr
        assert "unpacking" not in done.stderr
        for text in words:
            assert text in done.stderr
        assert os.listdir(self.place) in (["cache"], [])


@pytest.fixture
def buyer_of(
    site: Site, keys: Signer, new_place: Callable[[User], HostPath]
) -> Callable[[Runner], Buyer]:
    def make(runner: Runner) -> Buyer:
        place = new_place(runner.user)
        keyring = HostPath(f"{os.path.dirname(place)}/release-keys.asc")
        with open(keyring, "wb") as target:
            for name in ("good", "old"):
                with open(keys.keyring(name), "rb") as source:
                    target.write(source.read())
        os.chmod(keyring, 0o644)
        return Buyer(runner, site, place, keyring)

    return make


@pytest.fixture
def buyer(root: Runner, buyer_of: Callable[[Runner], Buyer]) -> Buyer:
    return buyer_of(root)


def test_real_tree_from_a_signed_stage3(
    runner: Runner,
    buyer_of: Callable[[Runner], Buyer],
    site: Site,
    keys: Signer,
    tree_store: TreeStore,
) -> None:
    """It is found, goes on after an interruption, is checked, made and run; then it is kept."""
    buyer = buyer_of(runner)
    with open(tree_store.archive("arm64"), "rb") as file:
        archive = lzma.compress(file.read(), preset=0)
    publish_stage3(site, keys, archive)
    site.faults[STAGE3] = Fault(cut_at=len(archive) // 2, times=1)
    done = buyer.signed(f"stage3:{VARIANT}")
    assert done.returncode == 0, done.stderr
    assert "is signed by good <good@test>" in done.stderr
    assert [asked for path, asked in site.asked if path == STAGE3] == [
        "",
        f"bytes={len(archive) // 2}-",
    ]
    tree = f"{buyer.place}/tree"
    assert done.stdout == f"{tree}: arm64, Debian GNU/Linux 12 (bookworm)\n"
    assert runner.output(tree, "uname", "-m") == "aarch64\n"
    os.rename(tree, f"{buyer.place}/first")
    assert buyer.signed(f"stage3:{VARIANT}").returncode == 0
    assert site.fetches(STAGE3) == 2


def test_either_the_digests_or_the_signature_will_do(
    buyer: Buyer, site: Site, keys: Signer
) -> None:
    for missing in (f"{STAGE3}.asc", f"{STAGE3}.DIGESTS"):
        publish_stage3(site, keys, STAGE3_OF_IT)
        del site.files[missing]
        done = buyer.signed(f"stage3:{VARIANT}")
        assert done.returncode == 0, done.stderr
        os.rename(f"{buyer.place}/tree", f"{buyer.place}/{missing.rpartition('.')[2]}")


def test_neither_digests_nor_signature(buyer: Buyer, site: Site, keys: Signer) -> None:
    publish_stage3(site, keys, STAGE3_OF_IT)
    del site.files[f"{STAGE3}.asc"], site.files[f"{STAGE3}.DIGESTS"]
    buyer.assert_refused(buyer.signed(f"stage3:{VARIANT}"), "neither its .DIGESTS nor its .asc")


@pytest.mark.parametrize("part", [LATEST, f"{STAGE3}.DIGESTS", f"{STAGE3}.asc"])
@pytest.mark.parametrize(("key", "reason"), [("other", "not in"), ("old", "has expired")])
def test_wrong_and_expired_keys(
    buyer: Buyer, site: Site, keys: Signer, part: str, key: str, reason: str
) -> None:
    publish_stage3(site, keys, STAGE3_OF_IT)
    content = site.files[part]
    when = "20200102T000000" if key == "old" else ""
    if part.endswith(".asc"):
        site.files[part] = keys.sign(key, STAGE3_OF_IT, when=when)
    else:
        text = content.partition(b"\n\n")[2].partition(b"-----BEGIN PGP SIGNATURE")[0]
        site.files[part] = keys.sign_text(key, text, when=when)
    buyer.assert_refused(buyer.signed(f"stage3:{VARIANT}"), "is signed by", reason)


@pytest.mark.parametrize("part", [LATEST, f"{STAGE3}.DIGESTS"])
def test_changed_and_unsigned_lists(buyer: Buyer, site: Site, keys: Signer, part: str) -> None:
    publish_stage3(site, keys, STAGE3_OF_IT)
    signed = site.files[part]
    site.files[part] = signed.replace(b"stage3-", b"stage4-")
    buyer.assert_refused(buyer.signed(f"stage3:{VARIANT}"), "is not what was signed")
    site.files[part] = signed.partition(b"\n\n")[2].partition(b"-----BEGIN")[0]
    buyer.assert_refused(buyer.signed(f"stage3:{VARIANT}"), "is not signed")


def test_changed_archive(buyer: Buyer, site: Site, keys: Signer) -> None:
    publish_stage3(site, keys, STAGE3_OF_IT)
    site.files[STAGE3] = STAGE3_OF_IT[:-1] + b"!"
    done = buyer.signed(f"stage3:{VARIANT}")
    buyer.assert_refused(done, "is not what it should be: its sha512 is")
    del site.files[f"{STAGE3}.DIGESTS"]
    buyer.assert_refused(buyer.signed(f"stage3:{VARIANT}"), "is not what was signed")


def test_digests_of_another_archive(buyer: Buyer, site: Site, keys: Signer) -> None:
    publish_stage3(site, keys, STAGE3_OF_IT)
    digests = f"# SHA512 HASH\n{'0' * 128}  {STAGE3.rpartition('/')[2]}\n"
    site.files[f"{STAGE3}.DIGESTS"] = keys.sign_text("good", digests.encode())
    buyer.assert_refused(buyer.signed(f"stage3:{VARIANT}"), "not 0000")
    other = digests.replace("stage3-", "stage4-")
    site.files[f"{STAGE3}.DIGESTS"] = keys.sign_text("good", other.encode())
    buyer.assert_refused(buyer.signed(f"stage3:{VARIANT}"), "has no SHA-512 digest of the archive")


def test_list_that_names_another_place(buyer: Buyer, site: Site, keys: Signer) -> None:
    publish_stage3(site, keys, STAGE3_OF_IT)
    site.files[LATEST] = keys.sign_text("good", f"../stage3-{VARIANT}-1.tar.xz 5\n".encode())
    buyer.assert_refused(buyer.signed(f"stage3:{VARIANT}"), f"names none of {VARIANT}")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=404), "404"),
        (Fault(stall_at=0), "the server sent nothing for 0.5 s"),
        (Fault(cut_at=0), "the connection ended after 0 of"),
        (Fault(lie=5), "the server announces"),
        (Fault(lie=-5), "the server announces"),
        (Fault(redirect=STAGE3), "redirects in a loop"),
        (Fault(status=500), "500"),
    ],
)
def test_mirror_at_fault(buyer: Buyer, site: Site, keys: Signer, fault: Fault, reason: str) -> None:
    publish_stage3(site, keys, STAGE3_OF_IT)
    site.faults[STAGE3] = fault
    hurry = ("--stall-timeout", "0.5") if fault.stall_at >= 0 else ()
    buyer.assert_refused(buyer.signed(f"stage3:{VARIANT}", *hurry), reason)


def test_what_the_mirror_does_not_have(buyer: Buyer) -> None:
    done = buyer.signed("stage3:arm64-nothing")
    buyer.assert_refused(done, "no stage3 archive of arm64-nothing", "autobuilds/")


def test_no_keyring(buyer: Buyer, site: Site, keys: Signer) -> None:
    publish_stage3(site, keys, STAGE3_OF_IT)
    done = buyer.create(f"stage3:{VARIANT}", "--keyring", "/nonexistent")
    buyer.assert_refused(done, "no keyring /nonexistent", "--keyring FILE names Gentoo's")
    assert not site.asked


def test_no_room_in_the_cache(buyer: Buyer, site: Site, keys: Signer) -> None:
    publish_stage3(site, keys, b"x" * 1_000_000)
    os.mkdir(f"{buyer.place}/cache")
    argv = [*buyer.runner.xbuild, "create", f"{buyer.place}/tree", "--from", f"stage3:{VARIANT}"]
    options = ["--mirror", site.url, "--keyring", buyer.keyring]
    script = f'mount -t tmpfs -o size=400k none {buyer.place}/cache && exec "$@"'
    done = buyer.runner.user.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *argv, *options],
        env=buyer.runner.user.environment(XDG_CACHE_HOME=f"{buyer.place}/cache"),
    )
    buyer.assert_refused(done, "it needs 1.0 MB", "xbuild cache prune")


def test_tree_from_a_signed_minirootfs(
    runner: Runner, buyer_of: Callable[[Runner], Buyer], site: Site, keys: Signer
) -> None:
    buyer = buyer_of(runner)
    publish_minirootfs(site, keys, MINIROOTFS_OF_IT)
    done = buyer.signed("alpine:3.20", "--arch", "arm64")
    assert done.returncode == 0, done.stderr
    assert "is signed by good <good@test>" in done.stderr
    assert done.stdout.startswith(f"{buyer.place}/tree: arm64")


def test_minirootfs_that_is_not_right(buyer: Buyer, site: Site, keys: Signer) -> None:
    words = ("alpine:3.20", "--arch", "arm64")
    publish_minirootfs(site, keys, MINIROOTFS_OF_IT, key="other")
    buyer.assert_refused(buyer.signed(*words), "which is not in")
    publish_minirootfs(site, keys, MINIROOTFS_OF_IT)
    site.files[MINIROOTFS] = MINIROOTFS_OF_IT[:-1] + b"!"
    shutil.rmtree(f"{buyer.place}/cache")
    buyer.assert_refused(buyer.signed(*words), "its sha256 is")
    listed = site.files[RELEASES]
    publish_minirootfs(site, keys, MINIROOTFS_OF_IT[:-1] + b"!")
    site.files[f"{MINIROOTFS}.asc"] = keys.sign("good", MINIROOTFS_OF_IT)
    buyer.assert_refused(buyer.signed(*words), "is not what was signed")
    del site.files[f"{MINIROOTFS}.asc"]
    buyer.assert_refused(buyer.signed(*words), "the mirror has no signature of it")
    site.files[RELEASES] = listed.replace(b"alpine-minirootfs", b"alpine-maxirootfs")
    buyer.assert_refused(buyer.signed(*words), "has no alpine-minirootfs for aarch64")


def test_minirootfs_without_a_keyring(buyer: Buyer, site: Site, keys: Signer) -> None:
    """The user's own digest says as well which archive it is."""
    publish_minirootfs(site, keys, MINIROOTFS_OF_IT)
    words = ("alpine:v3.20", "--arch", "aarch64")
    buyer.assert_refused(buyer.create(*words), "no keyring was named", "--sha256")
    wrong = buyer.create(*words, "--sha256", "0" * 64)
    buyer.assert_refused(wrong, "not 0000")
    done = buyer.create(*words, "--sha256", hashlib.sha256(MINIROOTFS_OF_IT).hexdigest())
    assert done.returncode == 0, done.stderr


def test_tarball_of_a_url(buyer: Buyer, site: Site) -> None:
    site.files["/base-arm64.tar.gz"] = MINIROOTFS_OF_IT
    url = f"{site.url}/base-arm64.tar.gz"
    words = [*buyer.runner.xbuild, "create", f"{buyer.place}/tree", "--from", url, "--sha256"]
    environment = buyer.runner.user.environment(XDG_CACHE_HOME=f"{buyer.place}/cache")
    done = buyer.runner.user.run([*words, "0" * 64], env=environment)
    buyer.assert_refused(done, "its sha256 is")
    site.files["/page.tar.gz"] = b"<html>log in</html>"
    done = buyer.runner.user.run([*words[:-2], f"{site.url}/page.tar.gz"], env=environment)
    buyer.assert_refused(done, f"{site.url}/page.tar.gz is a text file, not an archive")
    digest = hashlib.sha256(MINIROOTFS_OF_IT).hexdigest()
    done = buyer.runner.user.run([*words, digest], env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("stage3:",), "No variant of stage3"),
        (("stage3:../../etc",), "No variant of stage3"),
        (("stage3:arm64-openrc", "--sha256", "0" * 64), "--sha256 does not go with"),
        (("alpine:nonsense",), "No branch of Alpine"),
        (("alpine:3.20", "--arch", "alpha"), "Alpine has no name for alpha"),
        (("rootfs:EMPTY",), "--mirror does not go with"),
        (("stage3:arm64-openrc", "--stall-timeout", "soon"), "Not a length of time"),
    ],
)
def test_wrong_usage(buyer: Buyer, words: tuple[str, ...], reason: str) -> None:
    done = buyer.create(*words)
    assert done.returncode == 2, done.stderr
    assert reason in done.stderr
