"""Sets of native tools and their interpreter: which are used, shown, refused, and made anew."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.capability import require
from tests.images import MIB, make_image
from tests.patience import wait_for
from tests.runs import Runner, notes
from tests.toolsets import NATIVE, NativeRunner, digest_of
from tests.trees import tree_hash
from xbuild.record import GuestPath, HostPath, replace
from xbuild.toolset.manifest import read_toolset

ARCH = "/usr/bin/arch"
FOREIGN = "aarch64"

pytestmark = pytest.mark.usefixtures("host_untouched")


def test_without_a_set_there_is_no_run(root: Runner, native: NativeRunner) -> None:
    done = native.run(root.tree("arm64"), "--", "true")
    assert done.returncode == 125
    assert f"xbuild native prepare {root.tree('arm64')}" in done.stderr


def test_set_of_another_tree_is_not_used(
    root: Runner, native: NativeRunner, fresh_tree: Callable[..., HostPath]
) -> None:
    tree = fresh_tree("arm64")
    native.prepare(tree, ARCH)
    with open(f"{tree}{ARCH}", "ab") as file:
        file.write(b"\0")
    assert native.run(tree, "--", "true").returncode == 125


def test_set_that_knows_nothing_else_is_preferred(root: Runner, native: NativeRunner) -> None:
    """A larger tree's set has programs that this one lacks, which would be said to have changed."""
    tree = root.tree("arm64")
    place = native.prepare(tree, ARCH)
    (known,) = read_toolset(place).tools
    for number in range(6):
        path = GuestPath(f"/usr/bin/absent-{number}")
        native.store((known, replace(known, path=path, native=f"bin/absent-{number}")))
    done = native.run(tree, "--", "arch")
    assert done.stdout == f"{NATIVE}\n"
    assert notes(done) == []


DAMAGES: dict[str, tuple[str, Callable[[str], object]]] = {
    "changed": ("bin/arch is not as it was", lambda root: _flip(f"{root}/bin/arch")),
    "missing": ("bin/arch is missing", lambda root: os.unlink(f"{root}/bin/arch")),
    "added": ("bin/new is not of it", lambda root: shutil.copy("/bin/true", f"{root}/bin/new")),
    "empty": ("bin/arch is not as it was", lambda root: os.truncate(f"{root}/bin/arch", 0)),
    "manifest": ("its digest is another", lambda root: _edit(f"{root}/../manifest.json")),
    "half": ("is no JSON", lambda root: os.truncate(f"{root}/../manifest.json", 40)),
    "setuid": ("bin/arch is set-user-ID", lambda root: os.chmod(f"{root}/bin/arch", 0o4755)),
}


def _flip(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(bytes([file.read(1)[0] ^ 1]))


def _edit(path: str) -> None:
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace('"busybox"', '"another"'))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_set_is_noticed_before_use(root: Runner, native: NativeRunner, damage: str) -> None:
    tree = root.tree("arm64")
    place = native.prepare(tree, ARCH)
    assert native.output(tree, "--", "arch") == f"{NATIVE}\n"
    message, spoil = DAMAGES[damage]
    spoil(f"{place}/root")
    done = native.run(tree, "--", "arch")
    assert (done.returncode, done.stdout) == (125, "")
    assert message in done.stderr
    assert f"rm -r {place}" in done.stderr


def test_sets_of_strangers_are_not_used(root: Runner, ranged: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    place = native.prepare(tree, ARCH)
    os.chown(place, ranged.user.uid, ranged.user.gid)
    done = native.run(tree, "--", "true")
    assert done.returncode == 125
    assert "belong to another user" in done.stderr


def test_programs_that_are_covered_are_said(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    done = native.run("--tmpfs", "/usr/bin", tree, "--", "/bin/sh")
    assert done.returncode == 125
    assert "none of these programs is in the view" in done.stderr


def test_interpreter_is_made_anew_when_it_is_not_as_made(
    root: Runner, native: NativeRunner
) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    native.output(tree, "--", "true")
    directory = f"{native.cache}/xbuild/native/interpreters"
    made = [f"{place}/{name}" for place, _, names in os.walk(directory) for name in names]
    interpreter = max(made, key=os.path.getsize)
    before = digest_of(interpreter)
    os.truncate(interpreter, 4096)
    assert native.output(tree, "--", "sh", "-c", "arch; uname -m").split() == [NATIVE, FOREIGN]
    assert digest_of(interpreter) == before


def test_interpreter_that_cannot_be_kept_is_an_error(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    environment = root.user.environment(XDG_CACHE_HOME=native.cache)
    command = ["prlimit", "--fsize=1000000", *root.argv("--native", tree, "--", "arch")]
    done = root.user.run(command, env=environment)
    assert (done.returncode, done.stdout) == (125, "")
    assert "File too large" in done.stderr
    assert "XDG_CACHE_HOME" in done.stderr
    assert native.output(tree, "--", "arch") == f"{NATIVE}\n"


def test_many_first_runs_at_once(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    environment = root.user.environment(XDG_CACHE_HOME=native.cache)
    started = [root.spawn("--native", tree, "--", "arch", env=environment) for _ in range(6)]
    assert [process.communicate()[0] for process in started] == [f"{NATIVE}\n"] * 6
    kept = os.listdir(f"{native.cache}/xbuild/native/interpreters")
    assert len(kept) == 1
    assert len(os.listdir(f"{native.cache}/xbuild/native/interpreters/{kept[0]}")) == 2


def test_dry_run_names_set_and_tools_and_writes_nothing(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    reason = "the cross driver tells its own options"
    native.prepare(tree, ARCH, "/usr/bin/env", level="fast", verdict="untested", reason=reason)
    before = tree_hash(native.cache)
    done = native.run("--dry-run", tree)
    assert done.returncode == 125  # nothing is left for exact use
    fast = ("--native=fast", "--dry-run", tree)
    shown = native.output(*fast)
    assert f"arch ({reason}), env ({reason})" in shown
    assert "note: native tools beyond the proof: 2, which --dry-run names" in shown
    document = json.loads(native.output("--json", *fast))
    step = next(each for each in document["steps"] if each["step"] == "Substitute")
    assert [each["path"] for each in step["substitutions"]] == [ARCH, "/usr/bin/env"]
    assert step["about"]["choice"] == "fast"
    assert tree_hash(native.cache) == before


def test_tree_in_an_image(root: Runner, native: NativeRunner, tmp_path: Path) -> None:
    """The files have another device number each time, and the same content."""
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    image = make_image(tmp_path / "tree.img", layout=[("root", "ext4", 768 * MIB, tree)])
    for options in ((), ("--ephemeral",), ("--read-only",), ()):
        script = f"arch; uname -m; sha256sum {ARCH} | cut -c 1-64"
        shown = native.output(*options, image, "--", "sh", "-c", script).split()
        assert shown == [NATIVE, FOREIGN, digest_of(f"{tree}{ARCH}")], options


def test_tree_of_this_machine_needs_no_native_tools(root: Runner, native: NativeRunner) -> None:
    tree = HostPath(f"{root.user.home}/own")
    os.makedirs(f"{tree}/bin", exist_ok=True)
    shutil.copy("/bin/busybox", f"{tree}/bin/sh")
    try:
        assert native.output(tree, "--", "/bin/sh", "-c", "echo here") == "here\n"
    finally:
        shutil.rmtree(tree)


def test_interpreter_without_room_leaves_bind_mounts(root: Runner, native: NativeRunner) -> None:
    """A qemu without PT_NOTE cannot be given first instructions."""
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    require("qemu", qemu is not None, "no qemu-aarch64")
    assert qemu is not None
    bare = f"{native.cache}/qemu-bare"
    shutil.copy(qemu, bare)
    _forget_notes(bare)
    tree = root.tree("arm64")
    native.prepare(tree, ARCH)
    done = native.run("--interpreter", bare, tree, "--", "sh", "-c", f"arch; uname -m; rm {ARCH}")
    assert done.stdout.split() == [NATIVE, FOREIGN]
    assert "note: native tools are bound over the tree's own" in done.stderr
    assert "Device or resource busy" in done.stderr


def _forget_notes(path: str) -> None:
    with open(path, "r+b") as file:
        header = file.read(64)
        at, count = int.from_bytes(header[32:40], "little"), header[56]
        for number in range(count):
            file.seek(at + 56 * number)
            if file.read(4) == b"\4\0\0\0":
                file.seek(at + 56 * number)
                file.write(b"\0\0\0\0")


def test_killed_run_leaves_nothing(root: Runner, native: NativeRunner) -> None:
    tree = root.tree("arm64")
    native.prepare(tree, "/usr/bin/sleep")
    environment = root.user.environment(XDG_CACHE_HOME=native.cache)
    long = f"sleep 1000.{os.getpid()}"
    script = ("sh", "-c", f"{long} & echo ready; wait")
    with root.spawn("--native", tree, "--", *script, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    find = ["pgrep", "-f", f"^{long}$"]
    wait_for(lambda: subprocess.run(find, capture_output=True, check=False).stdout == b"")
