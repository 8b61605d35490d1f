"""Trees that change, or work against the proof, while native tools are prepared for them."""

from __future__ import annotations

import glob
import os
import shutil
import stat
from collections.abc import Callable, Iterator

import pytest

from tests.capability import require
from tests.native_trees import know_programs_of
from tests.runs import Runner
from tests.trees import TreeStore
from xbuild.errors import MirrorUnavailable, ToolRefused
from xbuild.native.inquiry import ask
from xbuild.native.prepare import prepare
from xbuild.record import HostPath, Record
from xbuild.source.cache import cache_directory

GZIP = "usr/bin/gzip"


class Preparation(Record):
    """A set that was made while sed was replaced, and the modes of what it was compared in.

    The tree's gzip is another program than the package that it names.
    """

    levels: dict[str, tuple[str, str]]
    modes: tuple[int, ...]


@pytest.fixture(scope="module")
def preparation(tree_store: TreeStore, reachable_directory: HostPath) -> Iterator[Preparation]:
    require("root", os.geteuid() == 0, "the tests do not run as root")
    tree = tree_store.fresh("arm64")
    know_programs_of(tree, "dash", "grep", "gzip", "sed")
    shutil.copy(f"{tree}/usr/bin/cat", f"{tree}/{GZIP}")
    home = f"{reachable_directory}/hostile-cache"
    kept = f"{cache_directory()}/test-native-downloads"
    os.makedirs(f"{home}/xbuild/native")
    os.makedirs(kept, exist_ok=True)
    os.symlink(kept, f"{home}/xbuild/native/downloads")
    modes = []

    def meanwhile(text: str, _fraction: float | None) -> None:
        if "by the tree's own programs" in text:
            _upgrade(f"{tree}/usr/bin/sed")
        for place in glob.glob(f"{home}/xbuild/native/work-corpus-*"):
            modes.append(stat.S_IMODE(os.stat(place).st_mode))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", home)
        try:
            made = prepare(tree, progress=meanwhile).toolset
        except MirrorUnavailable as error:
            require("mirror", False, error.message)
            raise
    levels: dict[str, tuple[str, str]] = {
        str(tool.path): (tool.level, tool.reason) for tool in made.tools
    }
    yield Preparation(levels, tuple(modes))
    shutil.rmtree(home)
    shutil.rmtree(tree)


def _upgrade(program: str) -> None:
    """Put another file in a program's place, as package managers do."""
    shutil.copy(program, f"{program}.new")
    with open(f"{program}.new", "ab") as file:
        file.write(b"upgraded")
    os.rename(f"{program}.new", program)


def test_program_that_is_replaced_while_it_is_proven_is_left_to_emulation(
    preparation: Preparation,
) -> None:
    """It ran emulated both times, and of course agreed with itself."""
    assert preparation.levels["/usr/bin/sed"] == ("none", "it changed while it was proven")
    assert preparation.levels["/usr/bin/grep"] == ("exact", "")


def test_program_that_is_not_what_its_package_says_is_found_to_differ(
    preparation: Preparation,
) -> None:
    """The revisions agree, as the tree has it; only what both write tells."""
    level, reason = preparation.levels[f"/{GZIP}"]
    assert level == "none"
    assert "cases differ (gzip " in reason


def test_nobody_else_comes_to_what_is_compared(preparation: Preparation) -> None:
    """Who could write there would decide what is found to be identical."""
    assert set(preparation.modes) == {0o700}


@pytest.mark.parametrize("planted", ["ln -s /etc/passwd", "mkfifo"])
def test_answer_that_is_no_file_is_not_read(
    fresh_tree: Callable[..., HostPath], root: Runner, planted: str
) -> None:
    """The tree's shell could lead xbuild to any file of the host's, or have it wait for ever."""
    tree = fresh_tree("arm64")
    answer = "/run/xbuild-gate/answers/0"
    os.rename(f"{tree}/usr/bin/dash", f"{tree}/usr/bin/sh.own")
    with open(f"{tree}/usr/bin/dash", "w", encoding="ascii") as file:
        file.write(f"#!/usr/bin/sh.own\n{planted} {answer}\n")
    os.chmod(f"{tree}/usr/bin/dash", 0o755)
    with pytest.raises(ToolRefused, match="left no file as its answer"):
        ask(tree, ("uname",))
