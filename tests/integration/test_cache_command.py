"""``xbuild cache``: what is there, what goes, and that a running container keeps what it uses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.runs import Runner
from tests.toolsets import NATIVE, NativeAs
from tests.users import User
from xbuild.binary.arch import arch_named
from xbuild.emulation.interpreters import find_interpreter
from xbuild.record import HostPath


@pytest.fixture
def cache(runner: Runner) -> str:
    """The place of a cache of the runner's own, which has a qemu and an old download."""
    place = f"{runner.user.home}/cache"
    shutil.rmtree(place, ignore_errors=True)
    for directory in ("xbuild/qemu/7.2", "xbuild/downloads/sha256"):
        os.makedirs(f"{place}/{directory}")
    shutil.copy(
        find_interpreter(arch_named("aarch64")).path, f"{place}/xbuild/qemu/7.2/qemu-aarch64"
    )
    old = f"{place}/xbuild/downloads/sha256/{'0' * 64}"
    with open(old, "w") as file:
        file.write("content")
    os.utime(old, (1, 1))
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{runner.user.uid}:{runner.user.gid}", place], check=True)
    return place


def _xbuild(runner: Runner, cache: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = runner.user.environment(XDG_CACHE_HOME=cache)
    return runner.command("cache", *words, env=environment)


def test_listing_and_pruning_by_age(runner: Runner, cache: str) -> None:
    listed = json.loads(_xbuild(runner, cache, "list", "--json").stdout)
    assert listed["schema"] == "xbuild.cache/1"
    assert [each["kind"] for each in listed["holdings"]] == ["downloads", "interpreters"]
    assert listed["holdings"][0]["used"] == "1970-01-01T00:00:01+00:00"
    assert listed["size"] == sum(each["size"] for each in listed["holdings"])

    said = _xbuild(runner, cache, "prune", "--dry-run").stdout
    assert said.splitlines()[-1] == "would remove 1: 7 bytes"
    pruned = json.loads(_xbuild(runner, cache, "prune", "--json").stdout)
    assert [each["kind"] for each in pruned["removed"]] == ["downloads"]
    assert os.listdir(f"{cache}/xbuild/downloads/sha256") == []
    assert os.listdir(f"{cache}/xbuild/qemu") == ["7.2"]

    text = _xbuild(runner, cache, "list").stdout
    assert "interpreters" in text
    assert text.splitlines()[-1].endswith(f"MiB in {cache}/xbuild")


def test_container_keeps_its_interpreter(runner: Runner, cache: str) -> None:
    qemu = f"{cache}/xbuild/qemu/7.2/qemu-aarch64"
    words = ("--interpreter", qemu, runner.tree("arm64"), "sh", "-c", "echo up; read x; echo $x")
    with runner.spawn(*words, stdin=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        done = _xbuild(runner, cache, "prune", "--all")
        assert "note: kept qemu/7.2: " in done.stderr
        assert os.path.exists(qemu)
        assert "*" in _xbuild(runner, cache, "list").stdout
        run.stdin.write("down\n")
        run.stdin.flush()
        assert run.stdout.readline() == "down\n"
    assert run.returncode == 0
    assert _xbuild(runner, cache, "prune", "--all").returncode == 0
    assert not os.path.exists(qemu)


def test_container_keeps_its_set_of_native_tools(runner: Runner, native_as: NativeAs) -> None:
    """The set is mounted in it: files deleted from it would be gone inside, too."""
    native, tree = native_as(runner), runner.tree("arm64")
    place = native.prepare(tree, "/usr/bin/arch")
    environment = runner.user.environment(XDG_CACHE_HOME=native.cache)
    script = "echo up; read x; /usr/bin/arch"
    with runner.spawn(
        "--native", tree, "--", "sh", "-c", script, stdin=subprocess.PIPE, env=environment
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        done = _xbuild(runner, native.cache, "prune", "--all")
        assert "has it mounted" in done.stderr
        assert run.communicate("\n")[0] == f"{NATIVE}\n"
    _xbuild(runner, native.cache, "prune", "--all")
    assert not os.path.exists(place)


@pytest.mark.parametrize(
    "words",
    [("--all", "--keep", "1G"), ("--older-than", "soon"), ("--keep", "much"), ("--kind", "junk")],
)
def test_wrong_usage(root: Runner, words: tuple[str, ...]) -> None:
    assert root.command("cache", "prune", *words).returncode == 2


def test_empty_cache(root: Runner, tmp_path: str) -> None:
    environment = root.user.environment(XDG_CACHE_HOME=str(tmp_path))
    for words in (("list",), ("prune", "--all")):
        done = root.command("cache", *words, env=environment)
        assert (done.returncode, done.stderr) == (0, "")


def test_root_writes_nothing_into_the_cache_of_a_user(
    root: Runner, ranged: Runner, new_place: Callable[[User], HostPath]
) -> None:
    """As under sudo with the user's HOME: a link there leads to what is root's."""
    place = new_place(ranged.user)
    victim = f"{new_place(root.user)}/victim"
    with open(victim, "w") as file:
        file.write("precious")
    os.makedirs(f"{place}/xbuild/native")
    for name in ("xbuild/lock", "xbuild/native/lock"):
        os.symlink(victim, f"{place}/{name}")
    os.symlink(os.path.dirname(victim), f"{place}/xbuild/native/sets")
    subprocess.run(["chown", "-hR", f"{ranged.user.uid}:{ranged.user.gid}", place], check=True)
    environment = root.user.environment(XDG_CACHE_HOME=place)
    for words in (("cache", "prune"), ("native", "prune")):
        done = root.command(*words, env=environment)
        assert done.returncode == 125
        assert "it is another user's" in done.stderr
        assert "hint: sudo -H" in done.stderr
    with open(victim) as file:
        assert file.read() == "precious"
