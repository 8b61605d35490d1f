"""What goes from the cache by rule: pure choices, and deletion in a directory of the test's."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xbuild.record import HostPath, replace
from xbuild.source.holdings import KINDS, Holding, find_holdings
from xbuild.source.prune import Rule, choose, delete

NOW = 1000.0
OLD, NEW = (
    Holding("trees", HostPath(f"/{name}"), name, 100, used_at)
    for name, used_at in (("old", 100.0), ("new", 900.0))
)
DUST = Holding("unfinished", HostPath("/dust"), "dust", 5, 999.0)


@pytest.mark.parametrize(
    ("rule", "going"),
    [
        (Rule(), ["dust", "old", "new"]),
        (Rule(older_than_s=500), ["dust", "old"]),
        (Rule(older_than_s=950), ["dust"]),
        (Rule(keep_bytes=100), ["dust", "old"]),
        (Rule(keep_bytes=99), ["dust", "old", "new"]),
        (Rule(keep_bytes=1000), ["dust"]),
        (Rule(older_than_s=500, keep_bytes=10), ["dust", "old"]),
    ],
)
def test_choice_by_age_and_size(rule: Rule, going: list[str]) -> None:
    chosen = choose((NEW, DUST, OLD), rule, NOW)
    assert [holding.label for holding in chosen.going] == going
    assert not chosen.spared


def test_what_xbuild_did_not_put_there_goes_where_it_is_named_alone() -> None:
    strange = replace(OLD, kind="other")
    assert not choose((strange,), Rule(), NOW).going
    assert choose((strange,), Rule(takes_other=True), NOW).going == (strange,)


def test_what_is_used_is_spared_with_who_uses_it() -> None:
    chosen = choose((replace(OLD, users=("cc (7) has it open",)), NEW), Rule(keep_bytes=100), NOW)
    assert [each.why for each in chosen.spared] == ["cc (7) has it open"]
    assert [holding.label for holding in chosen.going] == ["new"]


def test_every_kind_is_found_by_its_place(tmp_path: Path) -> None:
    for place in (
        *("downloads/sha256/00", "downloads/partial/ab", "debian/x.tar", "debian/pool/x.deb"),
        *("native/sets/0/root/x", "native/interpreters/0/qemu", "qemu/10.0.2/qemu-arm"),
        *("ccache/arm/x", "interpreters", "native/digests/x", "debian/work-1/x"),
        *("native/sets/.new-going-1/x", "portage/distfiles/x", "portage/binpkgs/arm/x"),
        "strange/x",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("content")
    found = find_holdings(HostPath(str(tmp_path)))
    assert {holding.kind for holding in found} == {kind.name for kind in KINDS}
    assert all(holding.size_bytes == 7 for holding in found)
    assert sum(holding.kind == "unfinished" for holding in found) == 2
    outcome = delete(found, HostPath(str(tmp_path)))
    assert not outcome.spared
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_file_that_a_process_locks_or_opens_stays(tmp_path: Path) -> None:
    place = tmp_path / "downloads/sha256/00"
    place.parent.mkdir(parents=True)
    place.write_text("content")
    cache = HostPath(str(tmp_path))
    found = find_holdings(cache)
    with place.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert [each.why for each in delete(found, cache).spared] == ["it is in use"]
    with place.open() as file, subprocess.Popen(["sleep", "60"], stdin=file) as reader:
        try:
            (spared,) = delete(found, cache).spared
            assert "has a file of it open" in spared.why
            assert find_holdings(cache)[0].users
        finally:
            reader.kill()
    assert not delete(found, cache).spared
    assert not place.exists()


def test_directory_that_is_being_filled_stays(tmp_path: Path) -> None:
    (tmp_path / "debian/work-1").mkdir(parents=True)
    (tmp_path / "debian/x.tar").write_text("content")
    cache = HostPath(str(tmp_path))
    with open(tmp_path / "debian/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = find_holdings(cache)
        assert all("a process fills" in holding.users[0] for holding in found)
        assert len(delete(found, cache).spared) == 2
    assert len(delete(found, cache).going) == 2


def test_directory_in_which_somebody_works_stays(tmp_path: Path) -> None:
    place = tmp_path / "ccache/arm"
    place.mkdir(parents=True)
    cache = HostPath(str(tmp_path))
    found = find_holdings(cache)
    with subprocess.Popen(["sleep", "60"], cwd=place) as worker:
        try:
            (spared,) = delete(found, cache).spared
            assert "works in it" in spared.why
            assert place.is_dir()
        finally:
            worker.kill()


def test_last_use_is_the_newest_of_what_is_in_it(tmp_path: Path) -> None:
    place = tmp_path / "qemu/10.0"
    place.mkdir(parents=True)
    (place / "old").write_text("x")
    os.utime(place / "old", (1, 1))
    os.utime(place, (1, 1))
    (holding,) = find_holdings(HostPath(str(tmp_path)))
    assert holding.used_at == 1
    (place / "new").write_text("x")
    (holding,) = find_holdings(HostPath(str(tmp_path)))
    assert holding.used_at == pytest.approx(time.time(), abs=60)


def test_two_prune_at_once(tmp_path: Path) -> None:
    for number in range(20):
        place = tmp_path / f"ccache/{number}"
        place.mkdir(parents=True)
        (place / "x").write_text("x")
    command = [sys.executable, "-m", "xbuild", "cache", "prune", "--all"]
    (tmp_path / "home").mkdir()
    (tmp_path / "ccache").rename(tmp_path / "home/ccache")
    (tmp_path / "home").rename(tmp_path / "xbuild")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    both = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        _, said = process.communicate(timeout=300)
        assert (process.returncode, b"kept" in said) == (0, False), said
    assert os.listdir(tmp_path / "xbuild/ccache") == []
