"""Which compilers of a tree a set does not know."""

from __future__ import annotations

from pathlib import Path

from xbuild.record import GuestPath, HostPath
from xbuild.toolset.manifest import Tool, Toolset
from xbuild.toolset.strangers import strange_compilers
from xbuild.tree.resolve import DirectoryReader


def test_a_second_version_is_a_stranger(tmp_path: Path) -> None:
    places = ("aarch64-linux-gnu/13", "aarch64-linux-gnu/14", "arm-none-eabi/14")
    for place in places:
        for name in ("cc1", "cc1plus", "lto1"):
            path = tmp_path / "usr/libexec/gcc" / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "usr/libexec/gcc/aarch64-linux-gnu/13/cc1plus").unlink()
    (tmp_path / "usr/lib/gcc/aarch64-linux-gnu/14").mkdir(parents=True)
    known = GuestPath("/usr/libexec/gcc/aarch64-linux-gnu/14/cc1")
    tools = tuple(Tool(GuestPath(f"{known}{more}"), "0", "compiler") for more in ("", "plus"))
    toolset = Toolset("aarch64", "x86_64", "tests", (), tools, (), corpus="tests")
    with DirectoryReader(HostPath(str(tmp_path))) as reader:
        found = strange_compilers(reader, toolset)
    assert found == ("/usr/libexec/gcc/aarch64-linux-gnu/13/cc1",)
