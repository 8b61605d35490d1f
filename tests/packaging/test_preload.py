"""The one file that an installed command reads its modules from."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.installation import pip_install, pip_uninstall

_TREE = os.sep  # any tree will do: a dry run only reads


@pytest.fixture
def installation(
    installed_wheel: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[list[str], str]]:
    """Run the installed command; return what it says of a bad option, and the bundles there."""
    programs = os.path.join(installed_wheel, "xbuild")
    (package,) = glob.glob(os.path.join(installed_wheel, "../lib/python*/site-packages/xbuild"))

    def run() -> tuple[list[str], str]:
        answer = subprocess.run(
            [programs, "run", "--nonsense", _TREE], capture_output=True, text=True, check=False
        )
        assert answer.returncode == 2, answer.stderr
        bundles = glob.glob(os.path.join(package, "__pycache__", "start.*.pyc"))
        return bundles, answer.stderr

    for bundle in glob.glob(os.path.join(package, "__pycache__", "start.*")):
        os.unlink(bundle)
    return run


def test_first_start_makes_the_bundle_and_the_second_says_the_same(
    installation: Callable[..., tuple[list[str], str]],
) -> None:
    bundles, first = installation()
    assert len(bundles) == 1
    made = os.stat(bundles[0]).st_mtime_ns
    again, second = installation()
    assert (again, second) == (bundles, first)
    assert os.stat(bundles[0]).st_mtime_ns == made


def test_changed_source_is_seen(installation: Callable[..., tuple[list[str], str]]) -> None:
    (bundle,), _ = installation()
    source = os.path.join(os.path.dirname(os.path.dirname(bundle)), "cli", "options.py")
    kept = source + ".kept"
    shutil.copy2(source, kept)
    try:
        with open(source, encoding="utf-8") as file:
            text = file.read()
        with open(source, "w", encoding="utf-8") as file:
            file.write(text.replace("No such option", "Never heard of this option"))
        _, complaint = installation()
    finally:
        os.replace(kept, source)
    assert "Never heard of this option" in complaint
    _, complaint = installation()
    assert "No such option" in complaint


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x00" * 100])
def test_damaged_bundle_is_replaced(
    installation: Callable[..., tuple[list[str], str]], content: bytes
) -> None:
    (bundle,), said = installation()
    whole = os.stat(bundle).st_size
    with open(bundle, "wb") as file:
        file.write(content)
    assert installation()[1] == said
    assert os.stat(bundle).st_size == whole


def test_bundle_is_its_owners_alone_to_write(
    installation: Callable[..., tuple[list[str], str]],
) -> None:
    kept = os.umask(0)
    try:
        (bundle,), _ = installation()
    finally:
        os.umask(kept)
    assert os.stat(bundle).st_mode & 0o777 == 0o644


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full"])
def test_status_is_the_same_where_nobody_reads_errors(installed_wheel: str, stream: str) -> None:
    line = f"{installed_wheel}/xbuild"
    for options, status in (("--version", 0), ("run --nonsense /", 2)):
        done = subprocess.run(["sh", "-c", f"{line} {options} {stream}"], check=False)
        assert done.returncode == status


def test_nothing_stays_when_the_package_is_removed(
    distributions: dict[str, str], new_environment: Callable[[], str]
) -> None:
    programs = new_environment()
    pip_install(programs, "--no-index", distributions["wheel"])
    (package,) = glob.glob(os.path.join(programs, "../lib/python*/site-packages/xbuild"))
    subprocess.run([f"{programs}/xbuild", "run"], capture_output=True, check=False)
    (bundle,) = glob.glob(os.path.join(package, "__pycache__", "start.*.pyc"))
    assert os.path.getsize(bundle) > 1 << 18
    pip_uninstall(programs, "xbuild")
    assert not os.path.exists(package)
