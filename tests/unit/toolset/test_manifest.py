"""Manifests of sets: what is written is read again, and nothing else is taken for one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.errors import ToolsetDamaged
from xbuild.record import GuestPath, HostPath, replace
from xbuild.toolset.manifest import (
    Companion,
    Compiler,
    File,
    Tool,
    Toolset,
    compute_digest,
    read_toolset,
    write_manifest,
)

SET = Toolset(
    "aarch64",
    "x86_64",
    "Debian trixie",
    (Compiler(GuestPath("/usr/bin/gcc"), "14.2.0-19", "14.2.0-19cross1", "--enable-x"),),
    (
        Tool(
            *(GuestPath("/usr/bin/as"), "aa", "assembler", "usr/bin/as"),
            needs=("/usr/lib/libbfd.so",),
            drops_preload=True,
            level="exact",
            verdict="identical",
        ),
        Tool(GuestPath("/usr/bin/uname"), "bb", "coreutils", reason="it tells the machine"),
    ),
    (File("ld.so", link="lib/ld.so"), File("usr/bin/as", "cc")),
    (Companion(GuestPath("/usr/lib/libbfd.so"), "dd"),),
)


def test_nobody_else_may_write_a_manifest_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_manifest(SET, HostPath(str(tmp_path)))
    finally:
        os.umask(before)
    assert (tmp_path / "manifest.json").stat().st_mode & 0o777 == 0o644


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    place = HostPath(str(tmp_path))
    written = write_manifest(SET, place)
    read = read_toolset(place)
    assert read == written
    assert read.digest == compute_digest(SET)
    assert {tool.path: tool for tool in read.tools} == {tool.path: tool for tool in SET.tools}
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_verdicts_do_not_change_the_digest_but_all_else_does() -> None:
    tool = SET.tools[0]
    for change in ({"level": "none"}, {"verdict": "differs"}, {"reason": "why"}):
        changed = replace(SET, tools=(replace(tool, **change), SET.tools[1]))
        assert compute_digest(changed) == compute_digest(SET)
    assert compute_digest(replace(SET, corpus="2")) == compute_digest(SET)
    others = (
        replace(SET, machine="aarch64"),
        replace(SET, companions=()),
        replace(SET, files=SET.files[:1]),
        replace(SET, tools=(replace(tool, arguments=("-x",)), SET.tools[1])),
        replace(SET, tools=(replace(tool, sha256="ee"), SET.tools[1])),
    )
    assert len({compute_digest(each) for each in (SET, *others)}) == 6


BAD: dict[str, dict[str, Any]] = {  # Any: as JSON has it
    "another format": {"format": 1},
    "an unknown field": {"tools": [{"path": "/a", "sha256": "a", "kind": "other", "new": "x"}]},
    "a missing field": {"tools": [{"path": "/a", "kind": "other"}]},
    "a relative path": {"tools": [{"path": "a", "sha256": "a", "kind": "other"}]},
    "an unknown kind": {"tools": [{"path": "/a", "sha256": "a", "kind": "magic"}]},
    "use of nothing": {"tools": [{"path": "/a", "sha256": "a", "kind": "other", "level": "fast"}]},
    "a climbing path": {"files": [{"path": "../a", "sha256": "a"}]},
    "an absolute file": {"files": [{"path": "/etc/passwd", "sha256": "a"}]},
    "a file that is a link": {"files": [{"path": "a", "sha256": "a", "link": "b"}]},
    "a number for a text": {"provider": 3},
    "no array": {"tools": "none"},
    "too long a path": {"files": [{"path": "a" * 200, "sha256": "a"}]},
    "too many arguments": {
        "tools": [
            {"path": "/a", "sha256": "a", "kind": "other", "native": "a", "arguments": ["1"] * 3}
        ]
    },
    "an exception for everything": {
        "tools": [
            {"path": "/a", "sha256": "a", "kind": "other", "native": "a", "emulate_for": ["*"]}
        ]
    },
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_manifest_is_refused(name: str, tmp_path: Path) -> None:
    place = HostPath(str(tmp_path))
    write_manifest(SET, place)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | BAD[name]))
    with pytest.raises(ToolsetDamaged) as caught:
        read_toolset(place)
    assert f"rm -r {place}" in caught.value.hint


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_manifest(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "manifest.json").write_bytes(content)
        with pytest.raises(ToolsetDamaged):
            read_toolset(HostPath(place))


def test_a_directory_without_a_manifest_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(ToolsetDamaged, match="cannot be read"):
        read_toolset(HostPath(str(tmp_path)))
