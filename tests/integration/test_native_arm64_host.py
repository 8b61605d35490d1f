"""Native programs for hosts of arm64: laid out here, and run by emulation, no such host at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import Runner
from xbuild.native.relocate import Layout
from xbuild.record import HostPath
from xbuild.toolset.manifest import INSIDE

pytestmark = pytest.mark.usefixtures("host_untouched")


def test_relocated_programs_run_by_their_own_loader_and_libraries(
    root: Runner, tmp_path: Path
) -> None:
    tree, place = root.tree("arm64"), tmp_path / "root"
    place.mkdir()
    layout = Layout(tree, HostPath(str(place)), "aarch64")
    layout.add_base()
    for name in ("dash", "sed", "tar", "grep"):
        layout.add_program(layout.resolved(next(p for p in _places(name) if layout.has(p))))
    script = (
        f'find {INSIDE} -path "*/bin/*" >/tmp/all; while read p; do case $p in'
        " */sed) echo abc | $p s/b/x/ ;; */tar) $p --version | head -1 ;;"
        " */dash) $p -c 'echo $((6*7))' ;;"
        " */grep) echo b | LD_LIBRARY_PATH=/none $p -c b ;; esac;"
        f" {INSIDE}/ld.so --list $p | grep -v '{INSIDE}/'; done </tmp/all"
    )
    bind = ("--bind-ro", f"{place}:{INSIDE}")
    done = root.run(*bind, tree, "--", "/bin/sh", "-c", script)
    assert done.stderr == ""
    # What the kernel gives has no file.
    said = sorted(line for line in done.stdout.splitlines() if "\t (0x" not in line)
    assert said[:2] == ["1", "42"]
    assert said[2] == "axc"
    assert said[3].startswith("tar (GNU tar)")
    assert len(said) == 4


def _places(name: str) -> tuple[str, ...]:
    return (f"usr/bin/{name}", f"bin/{name}")
