"""What a user installs: a wheel, an editable install, a checkout, a source archive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any  # what JSON holds

import pytest

from tests.installation import pip_install

_PROBE = """
import json, os, xbuild
from xbuild.resources import data_directory
print(json.dumps({
    "package": os.path.dirname(xbuild.__file__),
    "version": xbuild.__version__,
    **{name: sorted(os.listdir(data_directory(name))) for name in ("binfmt", "known", "profiles")},
}))
"""


@pytest.fixture(scope="session")
def editable_install(checkout: str, new_environment: Callable[[], str]) -> str:
    """The bin directory of an environment with an editable install of the checkout."""
    programs = new_environment()
    pip_install(programs, "--no-build-isolation", "--editable", checkout)
    return programs


def test_wheel_finds_its_data_files(installed_wheel: str, checkout: str, tmp_path: str) -> None:
    found = _probe(os.path.join(installed_wheel, "python"), tmp_path)
    assert not found["package"].startswith(checkout)
    _assert_same_data(found, checkout)


def test_editable_install_finds_its_data_files(
    editable_install: str, checkout: str, tmp_path: str
) -> None:
    found = _probe(os.path.join(editable_install, "python"), tmp_path)
    assert found["package"] == os.path.join(checkout, "xbuild")
    _assert_same_data(found, checkout)


def test_checkout_finds_its_data_files(checkout: str) -> None:
    found = _probe(sys.executable, checkout)
    assert found["package"] == os.path.join(checkout, "xbuild")
    _assert_same_data(found, checkout)


@pytest.mark.parametrize("installation", ["installed_wheel", "editable_install"])
def test_console_script_tells_its_version(
    installation: str, request: pytest.FixtureRequest, tmp_path: str
) -> None:
    programs = request.getfixturevalue(installation)
    answer = subprocess.run(
        [os.path.join(programs, "xbuild"), "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    version = _probe(os.path.join(programs, "python"), tmp_path)["version"]
    assert answer.stdout.split()[:2] == ["xbuild", version]


def test_wheel_carries_no_tests(distributions: dict[str, str]) -> None:
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"xbuild"}


def test_wheel_says_that_it_is_typed(distributions: dict[str, str]) -> None:
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        assert "xbuild/py.typed" in wheel.namelist()


def test_sdist_carries_what_is_needed_to_test_it(distributions: dict[str, str]) -> None:
    with tarfile.open(distributions["sdist"]) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    for name in ("LICENSE", "pyproject.toml", "tests/conftest.py", "script/test", "binfmt"):
        assert any(found == name or found.startswith(f"{name}/") for found in names), name


def _probe(python: str, directory: str) -> dict[str, Any]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    answer = subprocess.run(
        [python, "-c", _PROBE],
        capture_output=True,
        text=True,
        check=True,
        cwd=directory,
        env=environment,
    )
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def _assert_same_data(found: dict[str, Any], checkout: str) -> None:
    for name in ("binfmt", "known", "profiles"):
        assert found[name] == sorted(os.listdir(os.path.join(checkout, name)))
        assert found[name], f"{name} is empty"
