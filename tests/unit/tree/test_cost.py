"""What a survey costs, counted in system calls: a loaded machine does not change those."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crafted import make_tree, merged_usr
from tests.patience import PATIENCE_S
from xbuild.record import HostPath
from xbuild.tree.survey import SAMPLE, SAMPLE_AT_START

Require = Callable[[str, bool, str], None]

ENTRIES = 30_000
# Beyond the sample's headers: resolving the shell, the loaders and os-release, and directories.
CALLS_BESIDES = 600
LISTINGS = 40

SURVEY = """
import os, sys
from xbuild.tree.resolve import DirectoryReader
from xbuild.tree.survey import SAMPLE_AT_START, survey_at_start, survey_directory
sample = int(sys.argv[2])
os.access("/begin", 0)
with DirectoryReader(sys.argv[1]) as reader:
    if sample == SAMPLE_AT_START:
        survey_at_start(reader)
    else:
        survey_directory(reader, sample=sample)
os.access("/end", 0)
"""


@pytest.fixture(scope="module")
def big_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostPath]:
    """A tree with ENTRIES files in /usr/bin."""
    root = tmp_path_factory.mktemp("big")
    make_tree(root, merged_usr("arm64", "/lib/ld-linux-aarch64.so.1"))
    for number in range(ENTRIES):
        (root / "usr/bin" / f"program{number}").touch()
    yield HostPath(str(root))
    shutil.rmtree(root)


@pytest.fixture
def small_tree(tmp_path: Path) -> HostPath:
    return make_tree(tmp_path, merged_usr("arm64", "/lib/ld-linux-aarch64.so.1"))


def system_calls(tree: HostPath, sample: int, trace: Path) -> Counter[str]:
    """Return how often each system call was made in a survey of ``tree``."""
    command = [sys.executable, "-c", SURVEY, tree, str(sample)]
    subprocess.run(["strace", "-o", str(trace), *command], check=True, timeout=PATIENCE_S)
    lines = trace.read_text().splitlines()
    begin = next(n for n, line in enumerate(lines) if '"/begin"' in line)
    end = next(n for n, line in enumerate(lines) if '"/end"' in line)
    return Counter(re.split(r"\(", line)[0] for line in lines[begin + 1 : end])


@pytest.fixture
def strace(require: Require) -> None:
    works = shutil.which("strace") is not None
    works = works and subprocess.run(["strace", "-o", "/dev/null", "true"]).returncode == 0
    require("strace", works, "system calls are counted with strace")


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("sample", [SAMPLE_AT_START, SAMPLE])
def test_the_cost_of_a_survey_is_bounded_whatever_the_size(
    big_tree: HostPath, tmp_path: Path, sample: int
) -> None:
    calls = system_calls(big_tree, sample, tmp_path / "trace")
    # A header is an open, a read and a close.
    assert calls.total() <= 3 * sample + CALLS_BESIDES
    assert calls["getdents64"] <= LISTINGS


@pytest.mark.usefixtures("strace")
def test_a_survey_at_start_is_cheaper_than_one_for_a_person(
    big_tree: HostPath, tmp_path: Path
) -> None:
    at_start = system_calls(big_tree, SAMPLE_AT_START, tmp_path / "a")
    asked_for = system_calls(big_tree, SAMPLE, tmp_path / "b")
    assert at_start["openat"] < asked_for["openat"] / 2


@pytest.mark.usefixtures("strace")
def test_no_file_is_written_or_changed(small_tree: HostPath, tmp_path: Path) -> None:
    calls = system_calls(small_tree, SAMPLE, tmp_path / "trace")
    # Opening is with O_RDONLY or O_PATH: see below. The rest reads.
    reading = {
        "openat",
        "close",
        "read",
        "fstat",
        "newfstatat",
        "readlinkat",
        "getdents64",
        "faccessat2",
    }
    assert set(calls) <= reading | {"lseek", "fcntl", "ioctl", "mmap", "munmap", "brk", "statx"}
    trace = (tmp_path / "trace").read_text()
    assert "O_WRONLY" not in trace
    assert "O_RDWR" not in trace
