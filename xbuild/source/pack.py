"""Pack a tree into a tar archive, the way back from unpacking: the same tree, the same bytes.

GNU tar reads it as root of the ids that its containers have. Sorted by name, numeric owners, no
names of this host, no times but those of the tree's own files.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from xbuild.emulation.packages import package_command
from xbuild.errors import HostUnable, SourceError
from xbuild.record import GuestPath, HostPath
from xbuild.sandbox.compressing import compress_command
from xbuild.sandbox.confined import ConfinedProgram, Place
from xbuild.sandbox.room import MORE_ROOM

if TYPE_CHECKING:
    from xbuild.plan.ids import Identities
    from xbuild.sandbox.compressing import Compression

_TREE = GuestPath("/tree")
_ENDINGS: dict[Compression, tuple[str, ...]] = {
    "gzip": (".gz", ".tgz"),
    "bzip2": (".bz2", ".tbz2"),
    "xz": (".xz", ".txz"),
    "zstd": (".zst", ".tzst"),
}
_EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"  # reproducible-builds.org/specs/source-date-epoch
_SOCKET = "socket ignored"


def compression_for(name: str) -> Compression:
    """Return how an archive of this name is compressed."""
    for compression, endings in _ENDINGS.items():
        if name.lower().endswith(endings):
            return compression
    return "none"


def latest_time() -> int | None:
    """Return the time that no file's may be later than, None where the environment has none.

    Raises SourceError for a value that is none.
    """
    text = os.environ.get(_EPOCH_VARIABLE)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise SourceError(f"{_EPOCH_VARIABLE} is no number of seconds: {text!r}", "unset it")
    return int(text)


def pack_tree(
    tree: HostPath,
    output: HostPath,
    compression: Compression,
    identities: Identities,
    *,
    name: str = "",
) -> tuple[str, ...]:
    """Write the new file ``output``, and return notes on what is not in it.

    ``name`` is what it is going to be called, where its path says nothing to people. Raises
    SourceError where not all could be read or written, HostUnable.
    """
    command = compress_command(compression)
    with open(output, "xb") as file:
        try:
            compressor = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE
            )
        except FileNotFoundError as error:
            raise HostUnable(
                f"Cannot compress {output}: {command[0]} is not installed",
                package_command(command[0]),
            ) from error
        with compressor:
            try:
                said = _run_tar(tree, compressor, identities)
            except BaseException:
                compressor.kill()
                raise
            _, complaint = compressor.communicate()
        if compressor.returncode:
            reason = complaint.decode("utf-8", "replace").strip() or f"{command[0]} failed"
            raise SourceError(f"Cannot write {name or output}: {reason}", MORE_ROOM)
        os.fsync(file.fileno())
    return said


def _run_tar(
    tree: HostPath, compressor: subprocess.Popen[bytes], identities: Identities
) -> tuple[str, ...]:
    assert compressor.stdin is not None
    with ConfinedProgram(
        _tar(latest_time()),
        (Place(tree, _TREE),),
        identities.outer,
        purpose=f"pack {tree}",
        stdout=compressor.stdin.fileno(),
    ) as program:
        ended = program.wait()
    lines = [line.removeprefix("tar: ") for line in ended.said.splitlines() if line.strip()]
    told = tuple(line for line in lines if not line.startswith("Exiting with"))
    if ended.status and compressor.poll() is None:
        hint = (
            "nothing may write to it meanwhile: xbuild ps" if "changed as we" in ended.said else ""
        )
        raise SourceError(f"Cannot pack {tree}: {'; '.join(told[:3])}", hint)
    return told


def _tar(latest: int | None) -> tuple[str, ...]:
    clamp = () if latest is None else (f"--mtime=@{latest}", "--clamp-mtime")
    return (
        *("tar", "-c", "-f", "-", "-C", _TREE, "--one-file-system", "--sort=name"),
        *("--numeric-owner", "--format=posix", "--xattrs", "--xattrs-include=*"),
        *("--xattrs-exclude=security.selinux", "--acls"),
        # Blocks of zeros, and not the holes, which differ with the file system; in the version that
        # has no name with tar's process number in it.
        *("--sparse", "--hole-detection=raw", "--sparse-version=0.0"),
        # The names of extended headers have tar's process number by default.
        "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
        *clamp,
        ".",
    )
