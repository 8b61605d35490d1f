"""docs/ci.md, done as it says: a job by hand as an ordinary user, and a tree in a registry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.documented import blocks, commands, make_home, type_line
from tests.installation import CHECKOUT
from tests.oci import registry
from tests.patience import WORK_S
from tests.runs import Runner
from xbuild.record import HostPath
from xbuild.source.debian import COMPILER_PACKAGES

DOCUMENT = Path(CHECKOUT, "docs/ci.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return DOCUMENT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


@pytest.fixture
def home(ranged: Runner, fresh_tree: Callable[..., HostPath]) -> Iterator[HostPath]:
    """A home with the project of the document and its tree, instead of what `create` makes."""
    tree = fresh_tree("arm64", ranged.user, COMPILER_PACKAGES)
    place = HostPath(os.path.dirname(tree))
    os.rename(tree, f"{place}/arm64")
    (source,), (makefile,) = (blocks(section("A job by hand"), kind) for kind in ("c", "make"))
    os.mkdir(f"{place}/project")
    Path(place, "project/bits.c").write_text(source)
    Path(place, "project/Makefile").write_text(makefile)
    make_home(ranged, place)
    for path in (f"{place}/project", f"{place}/project/bits.c", f"{place}/project/Makefile"):
        os.chown(path, ranged.user.uid, ranged.user.gid)
    yield place
    subprocess.run(["rm", "-rf", "--one-file-system", place], check=True)


def in_project(runner: Runner, home: HostPath, line: str) -> subprocess.CompletedProcess[str]:
    return type_line(runner, home, line, cwd=f"{home}/project", timeout_s=WORK_S)


def test_a_job_by_hand(ranged: Runner, home: HostPath) -> None:
    create, succeeds, fails, show, events, last = commands(section("A job by hand"))
    assert create.startswith("xbuild create ~/arm64 --from debian:bookworm --arch arm64")
    assert create.endswith(" --include " + ",".join(sorted(COMPILER_PACKAGES)))
    project = Path(home, "project")

    done = in_project(ranged, home, succeeds)
    assert done.returncode == 0, done.stderr
    assert (project / "check.log").read_text() == "64\n"
    status = (project / "bits").stat()
    assert status.st_uid == ranged.user.uid
    header = (project / "bits").read_bytes()[:20]
    assert header[18:20] == b"\xb7\0"  # EM_AARCH64

    done = in_project(ranged, home, fails)
    assert done.returncode == 2
    assert "*** [Makefile:5: check] Error 1" in done.stderr
    assert re.search(r"^note: time \d", done.stderr, re.MULTILINE)
    assert in_project(ranged, home, show).stdout == "64\n"

    done = in_project(ranged, home, events)
    assert done.returncode == 0, done.stderr
    assert in_project(ranged, home, last).stdout.startswith('{"event": "exit", ')
    assert not Path(home, "arm64/tmp/check.log").exists()


def test_keys_for_caches(ranged: Runner, home: HostPath) -> None:
    (line,) = commands(section("Keys for caches"))
    key = in_project(ranged, home, line).stdout
    assert re.fullmatch(r"xbuild-aarch64-qemu\S+-[0-9a-f]{20}\n", key)


def test_the_matrix_of_the_document(ranged: Runner, home: HostPath) -> None:
    (line,) = commands(section("Many machines"))
    shown = blocks(section("Many machines"), "console")[0].splitlines()[1]
    beginning = shown.partition("…")[0].removesuffix(", ")
    assert in_project(ranged, home, line).stdout.startswith(beginning)


def test_a_tree_by_way_of_a_registry(
    root: Runner, reachable_directory: HostPath, fresh_tree: Callable[..., HostPath]
) -> None:
    (script,) = blocks(section("Many machines"), "")
    place = HostPath(os.path.dirname(fresh_tree("arm64")))
    make_home(root, place)
    os.mkdir(f"{place}/registry-store")
    with registry(f"{place}/registry-store") as address:
        script = script.replace("registry.example", address)
        script = script.replace("skopeo copy", "skopeo copy --dest-tls-verify=false")
        script = script.replace("xbuild create tree", "mv tree original && xbuild create tree")
        script += 'test "$(xbuild run --cache-key tree)" = "$key"\nxbuild run tree uname -m\n'
        done = type_line(root, place, f"set -e\n{script}", cwd=place, timeout_s=WORK_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "aarch64"
    shutil.rmtree(place)


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http|#)([^)#]+)", DOCUMENT))
def test_links_lead_somewhere(path: str) -> None:
    assert Path(CHECKOUT, "docs", path).exists()


def test_the_table_of_containers_says_what_the_program_says() -> None:
    from xbuild.plan import surroundings

    for engine in ("docker", "podman"):
        assert surroundings._ALLOW_NAMESPACES[engine] in section("In a container")
