"""An older Debian of 32 bits: compilers whose revision is refused, programs that write otherwise.

Debian 12's cross compilers for armhf lack the tree's security patches. What the assembler reads is
made by the tree's own compiler, then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.capability import require
from tests.native_trees import write_files
from tests.runs import Runner
from xbuild.errors import MirrorUnavailable
from xbuild.record import HostPath
from xbuild.source.cache import cache_directory
from xbuild.source.debian import BASE_PACKAGES, fetch_debian_archive, unpack_tree

# Kept from session to session, as the proof takes minutes.
CACHE_HOME = f"{cache_directory()}/test-bookworm-cache"
PACKAGES = (*BASE_PACKAGES, "gcc", "make", "libc6-dev")
TRIPLET = "arm-linux-gnueabihf"
CC1 = f"/usr/lib/gcc/{TRIPLET}/12/cc1"
SECURITY = "12.2.0-14cross1, not 12.2.0-14+deb12u1"
FILES = {"a.c": '#include <stdio.h>\nint main(void) { return !printf("%.3f\\n", 0.1); }\n'}


@pytest.fixture(scope="module")
def tree(place: HostPath) -> HostPath:
    require("root", os.geteuid() == 0, "the tests do not run as root")
    try:
        archive = fetch_debian_archive("armhf", ("bookworm",), PACKAGES, progress=_silent)
    except MirrorUnavailable as error:
        require("mirror", False, error.message)
        raise
    return unpack_tree(archive, HostPath(f"{place}/bookworm"))


@pytest.fixture(scope="module")
def tools(tree: HostPath) -> dict[str, dict[str, Any]]:
    """What the set for the tree says of each of its programs, by path."""
    done = _native("prepare", tree)
    require("mirror", "mirror" not in done.stderr or done.returncode == 0, done.stderr)
    assert done.returncode == 0, done.stderr
    sets = json.loads(_native("list", "--json").stdout)["sets"]  # earlier ones may be kept as well
    (found,) = (each for each in sets if done.stdout.startswith(each["digest"][:12]))
    return {tool["path"]: tool for tool in found["tools"]}


def _native(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xbuild", "native", *words],
        env={**os.environ, "XDG_CACHE_HOME": CACHE_HOME},
        capture_output=True,
        text=True,
    )


def _silent(_text: str, _fraction: float | None) -> None:
    """Keep the progress out of the tests' output."""


def test_compiler_without_the_tree_s_security_patches_is_refused_at_every_level(
    tree: HostPath, tools: dict[str, dict[str, Any]], root: Runner
) -> None:
    assert tools[CC1]["level"] == "none"
    assert SECURITY in tools[CC1]["reason"]
    environment = root.user.environment(XDG_CACHE_HOME=CACHE_HOME)
    said = root.run("--native=fast", "--dry-run", "--json", tree, "true", env=environment).stdout
    (step,) = [each for each in json.loads(said)["steps"] if each["step"] == "Substitute"]
    used = {each["path"] for each in step["substitutions"]}
    assert "/usr/bin/make" in used
    assert not any("/gcc/" in path or path.endswith("gcc-12") for path in used)


@pytest.mark.parametrize("program", [f"{TRIPLET}-as", f"{TRIPLET}-ld.bfd", "make", "dash"])
def test_what_has_no_such_patches_is_proven(tools: dict[str, dict[str, Any]], program: str) -> None:
    assert (tools[f"/usr/bin/{program}"]["level"]) == "exact", tools[f"/usr/bin/{program}"]


@pytest.mark.parametrize("program", [f"{TRIPLET}-objdump", "od"])
def test_program_that_writes_otherwise_for_32_bits_is_left_emulated_and_named(
    tree: HostPath, tools: dict[str, dict[str, Any]], root: Runner, program: str
) -> None:
    tool = tools[f"/usr/bin/{program}"]
    assert (tool["level"], tool["verdict"]) == ("none", "differs")
    assert f"({program.removeprefix(f'{TRIPLET}-')} -" in tool["reason"]
    environment = root.user.environment(XDG_CACHE_HOME=CACHE_HOME)
    plan = root.run("--native", "--dry-run", tree, env=environment).stdout
    assert f"{program}: {tool['reason']}" in plan


def test_build_leaves_what_emulation_leaves(
    tree: HostPath, tools: dict[str, dict[str, Any]], root: Runner, tmp_path: Path
) -> None:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    environment = root.user.environment(XDG_CACHE_HOME=CACHE_HOME)
    made = []
    for name, chosen in (("emulated", ()), ("native", ("--native",))):
        work = write_files(f"{tmp_path}/{name}", FILES)
        options = (*chosen, "--bind", f"{work}:/mnt", "--chdir", "/mnt")
        script = "gcc -O2 -g -c a.c && gcc a.o -o a && ./a && objdump -d a.o >listing"
        done = root.run(*options, tree, "--", "/bin/sh", "-c", script, env=environment)
        assert done.stdout == "0.100\n", done.stderr
        made.append({each.name: each.read_bytes() for each in Path(work).iterdir()})
    assert made[0] == made[1]
