"""``xbuild inspect`` on real Debian trees."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.patience import WORK_S
from tests.trees import FOREIGN_ARCHITECTURES, TreeStore, tree_hash
from tests.users import User
from xbuild.record import HostPath

# Debian's name: e_machine, class, byte order, ABI, float, loader, CHOST, qemu's name.
EXPECTED = {
    "arm64": ("EM_AARCH64", 64, "little", None, None, "/lib/ld-linux-aarch64.so.1",
              "aarch64-unknown-linux-gnu", "aarch64"),
    "armhf": ("EM_ARM", 32, "little", "EABI5", "hard", "/lib/ld-linux-armhf.so.3",
              "armv7a-unknown-linux-gnueabihf", "arm"),
    "mipsel": ("EM_MIPS", 32, "little", "o32", "hard", "/lib/ld.so.1",
               "mipsel-unknown-linux-gnu", "mipsel"),
    "riscv64": ("EM_RISCV", 64, "little", "lp64d", "hard", "/lib/ld-linux-riscv64-lp64d.so.1",
                "riscv64-unknown-linux-gnu", "riscv64"),
    "s390x": ("EM_S390", 64, "big", None, None, "/lib/ld64.so.1", "s390x-ibm-linux-gnu", "s390x"),
}  # fmt: skip

XbuildFor = Callable[[User | None], list[str]]


def inspect(command: list[str], *arguments: str) -> dict[str, Any]:  # Any: JSON
    argv = [*command, "inspect", "--json", *arguments]
    output = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=WORK_S).stdout
    parsed: dict[str, Any] = json.loads(output)
    return parsed


def test_every_foreign_architecture_is_expected() -> None:
    assert set(EXPECTED) == set(FOREIGN_ARCHITECTURES)


@pytest.mark.parametrize("architecture", FOREIGN_ARCHITECTURES)
def test_a_debian_tree(
    architecture: str, foreign_tree: Callable[..., HostPath], xbuild_for: XbuildFor
) -> None:
    tree = foreign_tree(architecture)
    found = inspect(xbuild_for(None), tree)
    expected = (
        found["architecture"]["machine"],
        found["architecture"]["bits"],
        found["architecture"]["byte_order"],
        found["abi"]["name"],
        found["abi"]["float"],
        found["loader"],
        found["architecture"]["chost"],
        found["architecture"]["name"],
    )
    assert expected == EXPECTED[architecture]
    assert found["architecture"]["debian"] == architecture
    assert (found["libc"], found["distribution"]["id"]) == ("glibc", "debian")
    assert (found["shell"], found["leading_program"]) == ("/bin/bash", "/usr/bin/dash")
    assert (found["merged_usr"], found["loader_missing"]) == (True, False)
    assert [share["name"] for share in found["architectures"]] == [EXPECTED[architecture][-1]]
    assert found["architectures"][0]["programs"] > 20


@pytest.mark.parametrize("architecture", FOREIGN_ARCHITECTURES)
def test_a_debian_archive_says_the_same_as_its_tree(
    architecture: str,
    foreign_tree: Callable[..., HostPath],
    tree_store: TreeStore,
    xbuild_for: XbuildFor,
) -> None:
    of_tree = inspect(xbuild_for(None), foreign_tree(architecture), "--full")
    of_archive = inspect(xbuild_for(None), tree_store.archive(architecture))
    for only in ("target", "kind", "owner"):
        del of_tree[only], of_archive[only]
    assert of_archive == of_tree


def test_inspecting_changes_nothing_in_the_tree(
    foreign_tree: Callable[..., HostPath], xbuild_for: XbuildFor
) -> None:
    tree = foreign_tree("arm64")
    before = tree_hash(tree)
    inspect(xbuild_for(None), tree, "--full")
    assert tree_hash(tree) == before
