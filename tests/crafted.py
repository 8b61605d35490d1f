"""Trees and archives made for one test, of ELF headers rather than of real programs.

Real trees are in tests/trees.py; programs that run come from xbuild.binary.write.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
from dataclasses import dataclass

from xbuild.binary.arch import Arch, arch_named
from xbuild.binary.elf import ET_EXEC
from xbuild.record import HostPath

_ORDER_MARK = {"little": "<", "big": ">"}


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class HardLink:
    """A hard link to another path of the layout that stands before it."""

    path: str


class Fifo:
    """A FIFO, which nobody writes to."""


Layout = dict[str, bytes | Link | HardLink | type[Fifo] | None]
"""Paths below the root: None makes a directory, bytes a file of mode 0755."""


def elf(
    arch: str | Arch,
    *,
    interpreter: str | None = None,
    type_: int = ET_EXEC,
    machine: int | None = None,
    flags: int | None = None,
) -> bytes:
    """Return an ELF file without code: a header, PT_LOAD over all of it, PT_INTERP if asked."""
    row = arch_named(arch) if isinstance(arch, str) else arch
    mark, wide = _ORDER_MARK[row.order], row.bits == 64
    header_size, segment_size = (64, 56) if wide else (52, 32)
    name = interpreter.encode() + b"\0" if interpreter else b""
    count = 2 if interpreter else 1
    at = header_size + count * segment_size
    segments = [(1, 0, at + len(name))] + ([(3, at, len(name))] if interpreter else [])
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if mark == "<" else 2, 1]) + bytes(9)
    header = struct.pack(
        mark + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"),
        type_,
        row.machine if machine is None else machine,
        1,
        0x400000,
        header_size,
        0,
        row.flags_value if flags is None else flags,
        header_size,
        segment_size,
        count,
        0,
        0,
        0,
    )
    return ident + header + b"".join(_segment(mark, wide, *s) for s in segments) + name


def _segment(mark: str, wide: bool, kind: int, offset: int, size: int) -> bytes:
    if wide:
        return struct.pack(mark + "IIQQQQQQ", kind, 5, offset, 0x400000, 0x400000, size, size, 1)
    return struct.pack(mark + "IIIIIIII", kind, offset, 0x400000, 0x400000, size, size, 5, 1)


def make_tree(root: str | os.PathLike[str], layout: Layout) -> HostPath:
    """Write ``layout`` below ``root``, making directories as needed, and return ``root``."""
    for name, content in layout.items():
        path = os.path.join(root, name)
        os.makedirs(path if content is None else os.path.dirname(path), exist_ok=True)
        match content:
            case bytes():
                with open(path, "wb") as file:
                    file.write(content)
                os.chmod(path, 0o755)
            case Link(target):
                os.symlink(target, path)
            case HardLink(other):
                os.link(os.path.join(root, other), path)
            case None:
                continue
            case _:
                os.mkfifo(path)
    return HostPath(os.fspath(root))


def make_tar(layout: Layout, *, prefix: str = "./") -> bytes:
    """Return a tar archive of ``layout`` with every name behind ``prefix``."""
    with io.BytesIO() as output:
        with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, content in layout.items():
                _add(archive, prefix, name, content)
        return output.getvalue()


def _add(
    archive: tarfile.TarFile,
    prefix: str,
    name: str,
    content: bytes | Link | HardLink | type[Fifo] | None,
) -> None:
    member = tarfile.TarInfo(prefix + name)
    member.mode = 0o755
    match content:
        case bytes():
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
            return
        case Link(target):
            member.type, member.linkname = tarfile.SYMTYPE, target
        case HardLink(other):
            member.type, member.linkname = tarfile.LNKTYPE, prefix + other
        case None:
            member.type = tarfile.DIRTYPE
        case _:
            member.type = tarfile.FIFOTYPE
    archive.addfile(member)


OS_RELEASE = b"""\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION_CODENAME=bookworm
ID=debian
"""


def merged_usr(arch: str, loader: str, *, shell: str = "dash") -> Layout:
    """Return a small merged-/usr tree of dynamic programs, as Debian's are."""
    program = elf(arch, interpreter=loader)
    layout: Layout = {
        "bin": Link("usr/bin"),
        "sbin": Link("usr/sbin"),
        "lib": Link("usr/lib"),
        "lib64": Link("usr/lib64"),
        "usr/sbin": None,
        "usr/lib64": None,
        f"usr/bin/{shell}": program,
        "usr/bin/sh": Link(shell),
        "usr/bin/true": program,
        "etc/os-release": Link("../usr/lib/os-release"),
        "usr/lib/os-release": OS_RELEASE,
        f"usr{loader}": elf(arch, type_=3),
    }
    return layout


def busybox(arch: str) -> Layout:
    """Return a tree of one static program, absolute symlinks and no os-release."""
    return {
        "bin/busybox": elf(arch),
        "bin/sh": Link("/bin/busybox"),
        "bin/ls": Link("/bin/busybox"),
        "sbin/init": Link("/bin/busybox"),
        "usr/bin/env": Link("/bin/busybox"),
        "etc": None,
    }
