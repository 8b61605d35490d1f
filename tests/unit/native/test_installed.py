"""dpkg's database of a tree, in the forms that it takes."""

from __future__ import annotations

from pathlib import Path

from xbuild.native.installed import package_files, read_database
from xbuild.record import HostPath
from xbuild.tree.resolve import DirectoryReader

STATUS = """\
Package: gcc-14
Status: install ok installed
Architecture: arm64
Source: gcc-14 (14.2.0-19)
Version: 14.2.0-19+b1

Package: make
Status: install ok unpacked
Architecture: arm64
Version: 4.4.1-2

Package: libc6
Status: install ok installed
Architecture: armhf
Version: 2.41-12

Package: gone
Status: deinstall ok config-files
Architecture: arm64
Version: 1

Package: ../../etc
Status: install ok installed
Architecture: arm64
Version: 1
"""


def _tree(place: Path, status: str) -> HostPath:
    (place / "var/lib/dpkg/info").mkdir(parents=True)
    (place / "var/lib/dpkg/status").write_text(status)
    return HostPath(str(place))


def test_installed_packages_of_the_main_architecture_are_read(tmp_path: Path) -> None:
    with DirectoryReader(_tree(tmp_path, STATUS)) as reader:
        database = read_database(reader)
    assert database is not None
    assert database.architecture == "arm64"
    assert [(p.name, p.version, p.source) for p in database.packages] == [
        ("gcc-14", "14.2.0-19+b1", "gcc-14"),
        ("make", "4.4.1-2", "make"),
    ]


def test_a_tree_without_dpkg_has_no_database(tmp_path: Path) -> None:
    with DirectoryReader(HostPath(str(tmp_path))) as reader:
        assert read_database(reader) is None


def test_an_empty_database_is_none(tmp_path: Path) -> None:
    with DirectoryReader(_tree(tmp_path, "")) as reader:
        assert read_database(reader) is None


def test_lists_are_found_with_and_without_the_architecture(tmp_path: Path) -> None:
    tree = _tree(tmp_path, STATUS)
    (tmp_path / "var/lib/dpkg/info/make.list").write_text("/.\n/usr/bin/make\nrelative\n")
    (tmp_path / "var/lib/dpkg/info/gcc-14:arm64.list").write_text("/usr/bin/gcc-14\n")
    with DirectoryReader(tree) as reader:
        database = read_database(reader)
        assert database is not None
        gcc, make = database.packages
        assert package_files(reader, make) == ("/.", "/usr/bin/make")
        assert package_files(reader, gcc) == ("/usr/bin/gcc-14",)
