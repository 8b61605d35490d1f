"""Unpack a stranger's tar archive into an empty directory, which no member leaves.

GNU tar does it, where nothing but that directory can be reached (``sandbox.confined``). It is fed
member by member: what would lead outside is refused by name, what is beyond a limit or the room
that there is stops it, and what an ordinary user may not make is left out and listed.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from xbuild.errors import SourceError, UnknownFormat, UnsafeArchive
from xbuild.record import GuestPath, HostPath, Record
from xbuild.sandbox import room
from xbuild.sandbox.confined import ConfinedProgram, Ended, Place
from xbuild.tree.members import BLOCK, read_members, refuse_other_content
from xbuild.tree.stream import ForwardStream

if TYPE_CHECKING:
    from xbuild.plan.ids import Identities

SIZE_LIMIT = 64 << 30  # bytes of content, unless more is granted
MEMBER_LIMIT = 4_000_000
_LOOK_EVERY = 16 << 20  # bytes, after which the room that is left is looked at
_CHUNK = 1 << 20
_TREE = GuestPath("/tree")
NODES = (tarfile.CHRTYPE, tarfile.BLKTYPE)
_NO_ARCHIVE = "name a tar archive itself; a server may have sent a page about it"
_NO_NEWS = ("Exiting with failure status", "Removing leading")

Progress = Callable[[int, int], None]
"""Told the bytes of the archive read so far, and all of it."""


class Unpacked(Record):
    """What was made: how many members with how many bytes; ``left_out`` are device nodes.

    ``complaints`` are tar's, of what it could not keep, such as attributes that are root's alone.
    """

    members: int
    size: int
    left_out: tuple[str, ...]
    complaints: tuple[str, ...]


def check_digest(archive: HostPath, sha256: str) -> None:
    """Raise SourceError unless a file has this digest."""
    try:
        with open(archive, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(
            f"Cannot read {archive}: {error.strerror}",
            "look at the path and at who may read it: ls -l",
        ) from error
    if found != sha256:
        raise SourceError(
            f"{archive} is not what was asked for: its SHA-256 digest is {found}, not {sha256}",
            "fetch it again; where that digest is right, do not use this file",
        )


def unpack_archive(
    archive: HostPath,
    tree: HostPath,
    identities: Identities,
    *,
    size_limit: int = SIZE_LIMIT,
    keeps_owners: bool = True,
    label: str = "",
    progress: Progress | None = None,
) -> Unpacked:
    """Unpack to the empty directory ``tree``, with these ids; ``label`` is what people call it.

    Owners, modes, times, extended attributes, ACLs and holes are the archive's; without a range of
    ids, or without ``keeps_owners``, all is the caller's. Raises UnsafeArchive, DamagedArchive,
    UnknownFormat, TargetError, SourceError; what was made until then is left to the caller.
    """
    reading, writing = os.pipe()
    try:
        with (
            _CopiedStream(archive, label) as stream,
            ConfinedProgram(
                _tar(keeps_owners=keeps_owners and identities.kind != "single"),
                (Place(tree, _TREE, writable=True),),
                identities.outer,
                purpose=f"unpack {label or archive}",
                stdin=reading,
            ) as program,
        ):
            os.close(reading)
            reading = -1
            keeps_nodes = _may_make_nodes(identities)
            vetting = Vetting(archive, tree, size_limit, keeps_nodes=keeps_nodes, label=label)
            with suppress(BrokenPipeError):  # tar gave up, and says why
                vetting.pour(stream, writing, progress)
            os.close(writing)
            writing = -1
            ended = program.wait()
    finally:
        for fd in (reading, writing):
            if fd >= 0:
                os.close(fd)
    return _result(label or archive, vetting, ended)


def _may_make_nodes(identities: Identities) -> bool:
    return identities.outer is None


def _tar(*, keeps_owners: bool) -> tuple[str, ...]:
    owner = "--same-owner" if keeps_owners else "--no-same-owner"
    return (
        *("tar", "-x", "-f", "-", "-p", "-C", _TREE, "--numeric-owner", owner),
        *("--xattrs", "--xattrs-include=*", "--acls", "--delay-directory-restore"),
        *("--warning=no-timestamp", "--warning=no-unknown-keyword"),
    )


def _result(archive: str, vetting: Vetting, ended: Ended) -> Unpacked:
    lines = [line.removeprefix("tar: ") for line in ended.said.splitlines() if line.strip()]
    told = tuple(line for line in lines if not line.startswith(_NO_NEWS))
    if ended.status:
        reason = "; ".join(told[:3]) or f"tar ended with status {ended.status}"
        hint = room.MORE_ROOM if "No space left" in ended.said or "quota" in ended.said else ""
        raise SourceError(f"Cannot unpack {archive}: {reason}", hint)
    return Unpacked(vetting.members, vetting.size, tuple(vetting.left_out), told)


class _CopiedStream(ForwardStream):
    """Keeps what is read, for it to be passed on once it is known what it is."""

    def __init__(self, path: HostPath, label: str) -> None:
        super().__init__(path, label)
        self._kept: list[bytes] = []

    def read(self, size: int = -1) -> bytes:
        part = super().read(size)
        self._kept.append(part)
        return part

    def take(self) -> bytes:
        """Return what was read since the last call."""
        kept = b"".join(self._kept)
        self._kept.clear()
        return kept


class Vetting:
    """Looks at each member before it is passed on."""

    def __init__(
        self,
        archive: HostPath,
        tree: HostPath,
        size_limit: int,
        *,
        keeps_nodes: bool = True,
        label: str = "",
    ) -> None:
        self._archive = archive
        self._label = label or archive
        self._tree = tree
        self._size_limit = size_limit
        self._keeps_nodes = keeps_nodes
        self._unseen = 0  # bytes passed on since the room was looked at
        self.look_at_room(os.path.getsize(archive))
        self.members = 0
        self.size = 0
        self.left_out: list[str] = []

    def pour(self, stream: _CopiedStream, sink: int, progress: Progress | None) -> None:
        """Pass the members on to tar."""
        try:
            refuse_other_content(stream)
        except UnknownFormat as error:
            raise UnknownFormat(error.message, _NO_ARCHIVE) from error
        total = os.path.getsize(self._archive)
        for member, end in read_members(stream):
            self.judge(member, end - stream.tell())
            if self._is_left_out(member):
                self.left_out.append(member.name)
                stream.seek(end)
                stream.take()
                continue
            _write(sink, stream.take())
            while (missing := end - stream.tell()) > 0:
                stream.allow(_CHUNK)
                part = stream.read(min(_CHUNK, missing))
                if not part:
                    raise stream.cut_off()
                _write(sink, stream.take())
            if progress is not None:
                progress(stream.consumed, total)
        stream.finish()
        _write(sink, bytes(2 * BLOCK))

    def judge(self, member: tarfile.TarInfo, length: int) -> None:
        """Count a member in, with so many bytes of content. Raises UnsafeArchive, SourceError."""
        names = [member.name] + ([member.linkname] if member.islnk() else [])
        for name in names:
            if ".." in name.split("/"):
                raise UnsafeArchive(
                    f"{self._label} is not safe to unpack: {name!r} in it leads out of the tree",
                    "it is not what it says; get the tree from where you can trust",
                )
        self.members += 1
        self.size += length
        if self.members > MEMBER_LIMIT:
            raise self._beyond(f"has more than {MEMBER_LIMIT} members", "split it")
        if self.size > self._size_limit:
            raise self._beyond(
                f"unpacks to more than {self._size_limit / (1 << 20):.1f} MiB",
                "where that is right: --size-limit SIZE",
            )
        self._unseen += length
        if self._unseen > _LOOK_EVERY or not self.members % 1000:
            self.look_at_room(length)

    def look_at_room(self, wanted: int) -> None:
        """Raise SourceError unless so many bytes fit, with room left for others."""
        self._unseen = 0
        if not room.has_room(self._tree, wanted):
            least = (room.RESERVE + wanted) >> 20
            raise SourceError(
                f"Cannot unpack {self._label}: less than {least} MiB are left at its target",
                room.MORE_ROOM,
            )

    def _beyond(self, what: str, hint: str) -> UnsafeArchive:
        return UnsafeArchive(f"{self._label} {what}", hint)

    def _is_left_out(self, member: tarfile.TarInfo) -> bool:
        if self._keeps_nodes:
            return False
        return member.type in NODES or (member.islnk() and member.linkname in self.left_out)


def _write(sink: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(sink, left) :]
