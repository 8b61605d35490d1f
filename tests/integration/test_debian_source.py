"""Debian trees: fetched from the host's own mirror, cached, unpacked whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable

import pytest

from tests.capability import require
from tests.trees import FOREIGN_ARCHITECTURES, MORE_ARCHITECTURES, TreeStore, tree_hash
from tests.users import User
from xbuild.errors import MirrorUnavailable, PackageUnavailable, SourceError
from xbuild.record import HostPath
from xbuild.source import debian, mirror
from xbuild.source.debian import BASE_PACKAGES, default_suites, fetch_debian_archive

_MACHINES = {  # e_machine and byte order, elf(5)
    "arm64": (0xB7, "little"),
    "armhf": (0x28, "little"),
    "armel": (0x28, "little"),
    "mipsel": (8, "little"),
    "mips64el": (8, "little"),
    "ppc64el": (0x15, "little"),
    "riscv64": (0xF3, "little"),
    "s390x": (0x16, "big"),
}


@pytest.mark.parametrize("architecture", FOREIGN_ARCHITECTURES + MORE_ARCHITECTURES)
def test_shell_of_tree_is_of_its_architecture(
    foreign_tree: Callable[..., HostPath], architecture: str
) -> None:
    with open(os.path.join(foreign_tree(architecture), "bin/sh"), "rb") as shell:
        header = shell.read(20)
    machine, order = _MACHINES[architecture]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little" if order == "little" else "big") == machine


def test_tree_has_what_programs_expect(foreign_tree: Callable[..., HostPath]) -> None:
    tree = foreign_tree("arm64")
    for directory in ("proc", "sys", "dev", "run", "tmp", "root", "var/tmp", "home"):
        assert os.path.isdir(os.path.join(tree, directory)), directory
    for file in ("etc/passwd", "etc/group", "etc/resolv.conf", "etc/hosts", "etc/os-release"):
        assert os.path.isfile(os.path.join(tree, file)), file
    assert os.readlink(os.path.join(tree, "bin")) == "usr/bin"
    assert stat.S_IMODE(os.stat(os.path.join(tree, "tmp")).st_mode) == 0o1777


def test_dpkg_sees_unpacked_packages(foreign_tree: Callable[..., HostPath]) -> None:
    tree = foreign_tree("arm64")
    answer = subprocess.run(
        [
            "dpkg-query",
            f"--admindir={tree}/var/lib/dpkg",
            "-W",
            "-f=${db:Status-Status} ${Package}\n",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "unpacked bash\n" in answer.stdout
    owner = subprocess.run(
        ["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "-S", "/bin/bash"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert owner.stdout == "bash:arm64: /bin/bash\n"


def test_second_use_takes_no_network(
    tree_store: TreeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tree_store.archive("arm64")
    monkeypatch.setenv("PATH", "/nonexistent")
    again = fetch_debian_archive(
        "arm64", default_suites("arm64"), BASE_PACKAGES, progress=lambda _text, _fraction: None
    )
    assert again == archive


def test_ordinary_user_gets_an_own_tree(
    foreign_tree: Callable[..., HostPath], ordinary_user: User
) -> None:
    tree = foreign_tree("arm64", ordinary_user)
    owners = {
        os.lstat(os.path.join(directory, name)).st_uid
        for directory, directories, files in os.walk(tree)
        for name in (*directories, *files)
    }
    assert owners == {ordinary_user.uid}


def test_fresh_trees_are_independent(fresh_tree: Callable[..., HostPath]) -> None:
    one, other = fresh_tree("arm64"), fresh_tree("arm64")
    before = tree_hash(other)
    shutil.rmtree(os.path.join(one, "usr"))
    assert tree_hash(other) == before


def test_unknown_package_is_named(tmp_path: os.PathLike[str], tree_store: TreeStore) -> None:
    tree_store.archive("arm64")  # skips where the mirror does not serve at all
    try:
        with pytest.raises(PackageUnavailable, match="no-such-package"):
            fetch_debian_archive(
                "arm64",
                default_suites("arm64"),
                ("no-such-package",),
                cache=HostPath(os.fspath(tmp_path)),
                progress=lambda _text, _fraction: None,
            )
    except MirrorUnavailable as error:
        require("mirror", False, error.message)
    assert sorted(os.listdir(os.path.join(tmp_path, "debian"))) == ["lock", "pool"]


def test_unreachable_mirror_is_not_asked_again(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mirror.MIRROR_VARIABLE, "http://127.0.0.1:9/debian")
    with pytest.raises(MirrorUnavailable) as caught:
        fetch_debian_archive(
            "arm64",
            ("bookworm",),
            BASE_PACKAGES,
            cache=HostPath(os.fspath(tmp_path)),
            progress=lambda _text, _fraction: None,
        )
    assert caught.value.is_lasting


def test_failed_unpacking_leaves_nothing(tmp_path: os.PathLike[str]) -> None:
    damaged = HostPath(os.path.join(tmp_path, "damaged.tar"))
    with tarfile.open(damaged, "w") as archive:
        archive.addfile(tarfile.TarInfo("file"))
    with open(damaged, "r+b") as file:
        file.write(b"\xff" * 512)
    with pytest.raises(SourceError):
        debian.unpack_tree(damaged, HostPath(os.path.join(tmp_path, "tree")))
    assert os.listdir(tmp_path) == ["damaged.tar"]


def test_destination_that_exists_is_left_alone(
    tree_store: TreeStore, tmp_path: os.PathLike[str]
) -> None:
    with pytest.raises(SourceError, match="exists already"):
        debian.unpack_tree(tree_store.archive("arm64"), HostPath(os.fspath(tmp_path)))
    assert os.listdir(tmp_path) == []
