"""Comparing two looks at a host: what counts as a difference, and how it is put."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from xbuild.record import HostPath, replace
from xbuild.sandbox.certificate import Witness, certify, witness
from xbuild.sandbox.holders import Holder, Holders
from xbuild.sandbox.mountinfo import MountRow

EXTRA = MountRow(9999, "0:99", "/", "/mnt/gone", "rw", ("shared:1",), "tmpfs", "none", "rw")


@pytest.fixture
def tree(tmp_path: Path) -> HostPath:
    return HostPath(str(tmp_path))


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xbuild.sandbox.certificate._SETTLE_S", 0.1)


@pytest.fixture(autouse=True)
def no_loop_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this machine come and go with other tests; integration tests have their own."""
    monkeypatch.setattr("xbuild.sandbox.certificate.BLOCKS", "/nonexistent")


def test_nothing_changed_is_clean_and_free(tree: HostPath) -> None:
    found = certify(witness(tree), tree)
    assert found.is_clean
    assert found.text.partition(" (")[0] == (
        "host untouched: 0 mounts, 0 loop devices, 0 binfmt entries, 0 processes left;"
        f" {tree} is free to unmount or flash"
    )


def test_processes_that_could_not_be_looked_into_are_counted(tree: HostPath) -> None:
    before = witness(tree)
    text = certify(before, tree).text
    assert (" not looked into: " in text) is bool(before.holders.unseen)


def test_order_and_numbers_of_mounts_do_not_matter(tree: HostPath) -> None:
    before = witness(tree)
    rows = tuple(
        replace(row, mount_id=row.mount_id + 1000, tags=_renumbered(row.tags))
        for row in reversed(before.mounts)
    )
    assert certify(replace(before, mounts=rows), tree).is_clean


def test_vanished_mount_is_named(tree: HostPath) -> None:
    before = witness(tree)
    found = certify(replace(before, mounts=(*before.mounts, EXTRA)), tree)
    assert not found.is_clean
    assert found.text.startswith("NOT untouched: 1 mount disappeared: /mnt/gone (tmpfs); ")


def test_second_mount_on_the_same_point_is_a_difference(tree: HostPath) -> None:
    before = witness(tree)
    found = certify(replace(before, mounts=before.mounts[1:]), tree)
    assert found.text.startswith(f"NOT untouched: 1 mount appeared: {before.mounts[0].point}")


def test_mount_made_read_only_is_a_difference(tree: HostPath) -> None:
    before = witness(tree)
    changed = replace(before.mounts[0], options="ro")
    assert not certify(replace(before, mounts=(changed, *before.mounts[1:])), tree).is_clean


def test_many_differences_are_counted_and_some_named(tree: HostPath) -> None:
    before = witness(tree)
    more = tuple(replace(EXTRA, point=f"/mnt/{number}") for number in range(9))
    text = certify(replace(before, mounts=(*before.mounts, *more)), tree).text
    assert "9 mounts disappeared: /mnt/0 (tmpfs), " in text
    assert " and 4 more; " in text


def test_changed_entry_and_loop_device_are_named(tree: HostPath) -> None:
    before = witness(tree)
    other = replace(before, binfmt={**before.binfmt, "gone": "enabled"}, loops={"loop77": "/x"})
    text = certify(other, tree).text
    assert "loop device loop77 disappeared" in text
    assert "binfmt entry gone disappeared" in text


def test_holder_from_before_keeps_the_certificate_clean(tree: HostPath, idler: int) -> None:
    before = witness(tree)
    found = certify(before, tree)
    assert found.is_clean
    assert found.text.endswith(f"; {tree} is held by sleep ({idler}), as before")


def test_new_holder_is_named(tree: HostPath) -> None:
    before = witness(tree)
    with subprocess.Popen(["sleep", "60"], cwd=tree) as process:
        try:
            found = certify(before, tree)
        finally:
            process.kill()
    assert not found.is_clean
    assert f"1 process left: sleep ({process.pid}); " in found.text
    assert found.text.endswith(f"; {tree} is held by sleep ({process.pid})")


def test_unrelated_newcomer_that_holds_the_tree_is_told_apart(tree: HostPath, idler: int) -> None:
    before = witness(tree)
    unheld = replace(before, holders=Holders((), 0))
    assert f"the tree is now held by sleep ({idler})" in certify(unheld, tree).text


def test_process_left_elsewhere_is_named(tree: HostPath) -> None:
    before = witness(tree)
    with subprocess.Popen(["sleep", "60"], cwd="/") as process:
        try:
            found = certify(before, tree)
        finally:
            process.kill()
    assert f"1 process left: sleep ({process.pid}); {tree} is free" in found.text


def test_orphan_in_a_session_of_its_own_is_named(tree: HostPath) -> None:
    before = witness(tree)
    script = "setsid sleep 60 </dev/null >/dev/null 2>&1 & echo $!"
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    orphan = int(shell.stdout)
    try:
        found = certify(before, tree)
    finally:
        os.kill(orphan, 9)
        os.waitpid(orphan, 0)
    assert f"1 process left: sleep ({orphan})" in found.text


def test_tree_that_is_gone_is_said_to_be(tree: HostPath) -> None:
    before = witness(tree)
    absent = HostPath(f"{tree}/absent")
    assert certify(before, absent).text.endswith(f"; {absent} is gone")


def test_mount_below_the_tree_is_mentioned(tree: HostPath) -> None:
    below = replace(EXTRA, point=f"{tree}/boot")
    before = witness(tree)
    after = certify(replace(before, mounts=(*before.mounts, below)), tree)
    assert "disappeared" in after.text
    assert "umount -R" not in after.text


def test_holder_is_named_as_in_ps() -> None:
    assert str(Holder(1234, "make", "works in it")) == "make (1234)"


def test_witness_is_a_value(tree: HostPath) -> None:
    assert isinstance(witness(tree), Witness)


@pytest.fixture
def idler(tree: HostPath) -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"], cwd=tree) as process:
        yield process.pid
        process.kill()


def _renumbered(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{tag.partition(':')[0]}:4711" if ":" in tag else tag for tag in tags)
