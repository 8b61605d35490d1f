"""What C leaves to an ABI and programs show: the format of long double, whether char has a sign.

Where the target's are others than this host's, native programs are changed. For long double, a
library of our own goes before the C library in those that read numbers and print them (see
shim/long_double.c); it cannot serve programs that calculate. For char, ``unsigned_char`` changes
instructions.
"""

from __future__ import annotations

import os

from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Format = Literal["binary64", "binary128", "extended"]

_SHIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim")
# By the names of ``binary.arch``; the supplements of each psABI. Two doubles (POWER) are in no row.
_FORMATS: dict[str, Format] = {
    **dict.fromkeys(("x86_64", "i386"), "extended"),
    **dict.fromkeys(("aarch64", "loongarch64", "mips64el", "riscv64", "s390x"), "binary128"),
    **dict.fromkeys(("arm", "armeb", "mips", "mipsel"), "binary64"),
}
_WRITTEN: Format = "binary128"
_UNSIGNED_CHAR = frozenset(
    (*("aarch64", "aarch64_be", "arm", "armeb", "ppc", "ppc64", "ppc64le"), "riscv64", "s390x")
)


class Types(Record):
    """What native programs need to have the target's types.

    ``long_double`` is a library to load before all others: empty where the formats agree, None
    where they do not and there is no such library.
    """

    long_double: bytes | None
    needs_unsigned_char: bool


def types_for(machine: str, target: str) -> Types:
    """Compare two architectures of ``binary.arch``, the host's and the tree's."""
    needs_unsigned = target in _UNSIGNED_CHAR and machine not in _UNSIGNED_CHAR
    return Types(_library(machine, target), needs_unsigned)


def _library(machine: str, target: str) -> bytes | None:
    ours, theirs = _FORMATS.get(machine), _FORMATS.get(target)
    if ours is None or theirs is None:
        return None
    if ours == theirs:
        return b""
    path = os.path.join(_SHIM, f"{machine}.bin")
    if theirs == "extended" or not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        content = file.read()
    old, new = (f"target={name}\0".encode() for name in (_WRITTEN, theirs))
    if content.count(old) != 1:
        raise ValueError(f"{path} was not made by build.sh: it names no format")
    return content.replace(old, new.ljust(len(old), b"\0"))
