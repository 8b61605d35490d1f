"""Where data files are found: beside a checkout's package, or inside an installed one."""

from __future__ import annotations

import os

import pytest

from xbuild import resources


@pytest.fixture
def package(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty directory that stands for the package's."""
    directory = os.path.join(tmp_path, "xbuild")
    os.mkdir(directory)
    monkeypatch.setattr(resources, "_PACKAGE", directory)
    return directory


@pytest.mark.parametrize("name", ["binfmt", "known", "profiles"])
def test_checkout_has_its_data(name: str) -> None:
    assert os.listdir(resources.data_directory(name))


def test_data_inside_the_package_wins(package: str) -> None:
    os.makedirs(os.path.join(package, "data", "binfmt"))
    os.makedirs(os.path.join(os.path.dirname(package), "binfmt"))
    assert resources.data_directory("binfmt") == os.path.join(package, "data", "binfmt")


def test_data_beside_the_package_is_found(package: str) -> None:
    beside = os.path.join(os.path.dirname(package), "binfmt")
    os.mkdir(beside)
    assert resources.data_directory("binfmt") == beside


def test_incomplete_installation_is_named(package: str) -> None:
    with pytest.raises(FileNotFoundError, match="without its binfmt directory"):
        resources.data_directory("binfmt")
