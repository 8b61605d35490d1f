"""What real programs say of themselves: the shell of Debian's ports."""

from __future__ import annotations

import io
import tarfile

import pytest

from tests.trees import TreeStore
from xbuild.binary.abi import read_abi

PORTS = {
    "arm64": ("aarch64", None, None, None),
    "armel": ("arm", "EABI5", "soft", "armv5te"),
    "armhf": ("arm", "EABI5", "hard", "armv7-a"),
    "mips64el": ("mips64el", "n64", "hard", "mips64r2"),
    "mipsel": ("mipsel", "o32", "hard", "mips32r2"),
    "ppc64el": ("ppc64le", "ELFv2", None, None),
    "riscv64": ("riscv64", "lp64d", "hard", "rv64i"),
    "s390x": ("s390x", None, None, None),
}


def shell(archive: str) -> io.BytesIO:
    with tarfile.open(archive) as tree:
        for member in tree:
            if member.isreg() and member.name.endswith("bin/bash"):
                content = tree.extractfile(member)
                assert content is not None
                return io.BytesIO(content.read())
    raise AssertionError(f"no bash in {archive}")


@pytest.mark.parametrize("port", PORTS)
def test_the_shell_of_a_port(tree_store: TreeStore, port: str) -> None:
    abi = read_abi(shell(tree_store.archive(port)))
    assert abi.arch is not None
    level = abi.level and abi.level[:5] if port == "riscv64" else abi.level
    assert (abi.arch.name, abi.name, abi.float_abi, level) == PORTS[port]
    assert abi.debian == port
    assert abi.cpu is None
