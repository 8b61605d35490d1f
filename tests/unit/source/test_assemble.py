"""Packages made here, joined to one tree: merged /usr, links, left-out files, dpkg's database."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping

import pytest

from tests.capability import require
from xbuild.errors import DamagedPackage
from xbuild.record import HostPath
from xbuild.source.assemble import assemble, merged_path


def _silent(_text: str, _fraction: float | None) -> None: ...


@pytest.mark.parametrize(
    ("name", "merged"),
    [
        ("bin/sh", "usr/bin/sh"),
        ("lib64/ld64.so.2", "usr/lib64/ld64.so.2"),
        ("lib", "usr/lib"),
        ("usr/bin/env", "usr/bin/env"),
        ("library/x", "library/x"),
        ("etc/passwd", "etc/passwd"),
    ],
)
def test_merged_path(name: str, merged: str) -> None:
    assert merged_path(name) == merged


def test_files_of_bin_stand_below_usr(tmp_path: os.PathLike[str]) -> None:
    tree = _tree(tmp_path, {"bin/tool": "#!", "usr/bin/other": "#!"})
    assert tree.getmember("usr/bin/tool").isreg()
    assert tree.getmember("bin").linkname == "usr/bin"


def test_compatibility_link_does_not_become_a_loop(tmp_path: os.PathLike[str]) -> None:
    tree = _tree(tmp_path, {"bin/touch": "#!", "usr/bin/touch": "-> /bin/touch"})
    assert tree.getmember("usr/bin/touch").isreg()


def test_manuals_are_left_out_and_licences_stay(tmp_path: os.PathLike[str]) -> None:
    tree = _tree(
        tmp_path,
        {
            "usr/share/man/man1/tool.1": "text",
            "usr/share/doc/tool/README": "text",
            "usr/share/doc/tool/copyright": "text",
        },
    )
    names = tree.getnames()
    assert "usr/share/doc/tool/copyright" in names
    assert "usr/share/doc/tool/README" not in names
    assert "usr/share/man/man1/tool.1" not in names


def test_same_packages_make_the_same_bytes(tmp_path: os.PathLike[str]) -> None:
    deb = _deb(tmp_path, {"usr/bin/tool": "#!"})
    one, other = (HostPath(os.path.join(tmp_path, name)) for name in ("one.tar", "other.tar"))
    assemble((deb,), one, _silent)
    assemble((deb,), other, _silent)
    with open(one, "rb") as first, open(other, "rb") as second:
        assert first.read() == second.read()


def test_database_lists_what_a_package_owns(tmp_path: os.PathLike[str]) -> None:
    tree = _tree(tmp_path, {"bin/tool": "#!"})
    listed = tree.extractfile("var/lib/dpkg/info/sample.list")
    status = tree.extractfile("var/lib/dpkg/status")
    assert listed is not None
    assert status is not None
    assert listed.read().decode().splitlines() == ["/.", "/bin", "/bin/tool"]
    assert b"Package: sample\nStatus: install ok unpacked\n" in status.read()


def test_damaged_package_is_named(tmp_path: os.PathLike[str]) -> None:
    deb = HostPath(os.path.join(tmp_path, "damaged.deb"))
    with open(deb, "wb") as file:
        file.write(b"!<arch>\nnothing more")
    with pytest.raises(DamagedPackage, match=r"damaged\.deb"):
        assemble((deb,), HostPath(os.path.join(tmp_path, "tree.tar")), _silent)


def _tree(directory: os.PathLike[str], files: Mapping[str, str]) -> tarfile.TarFile:
    output = HostPath(os.path.join(directory, "tree.tar"))
    assemble((_deb(directory, files),), output, _silent)
    with open(output, "rb") as file:
        return tarfile.open(fileobj=io.BytesIO(file.read()))


def _deb(directory: os.PathLike[str], files: Mapping[str, str]) -> HostPath:
    require("dpkg", shutil.which("dpkg-deb") is not None, "dpkg-deb is not installed")
    root = os.path.join(directory, "root")
    control = "Package: sample\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    for name, content in {"DEBIAN/control": control, **files}.items():
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if content.startswith("-> "):
            os.symlink(content[3:], path)
        else:
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
    deb = HostPath(os.path.join(directory, "sample.deb"))
    subprocess.run(
        ["dpkg-deb", "-Znone", "--root-owner-group", "-b", root, deb],
        check=True,
        capture_output=True,
    )
    return deb
