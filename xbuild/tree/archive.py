"""A root filesystem in a tar archive, read in one pass and never written to disk.

Kept are names of symlinks and directories, the beginnings of programs and the files that name a
distribution; of the few programs that speak for a tree all of it, for their ABI. The archive is
not trusted: memory is bounded whatever it unpacks to, and names resolve inside the tree as
extraction would have them. Format: tar(5), read by tarfile.
"""

from __future__ import annotations

import io
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from xbuild.binary.elf import ELFMAG, SNIFF_BYTES
from xbuild.errors import SymlinkLoop, TargetError, TargetNotFound
from xbuild.record import GuestPath, HostPath
from xbuild.tree.distribution import OS_RELEASE, RELEASE_FILES
from xbuild.tree.members import read_members, refuse_other_content
from xbuild.tree.path_walk import MAXSYMLINKS, kind_of
from xbuild.tree.resolve import Entry, TreeReader
from xbuild.tree.stream import ForwardStream
from xbuild.tree.walk import may_be_program

_NAME_LIMIT = 4096  # PATH_MAX
_DEPTH_LIMIT = 256  # components
_ROOM = 64 << 20  # bytes kept of one archive
_WHOLE_LIMIT = 8 << 20  # bytes of one program
_NODE_COST = 256  # bytes of Python's own for each name kept

_WHOLE_NAMES = frozenset(("sh", "ash", "bash", "busybox", "dash", "init", "systemd", "toybox"))
_LIBRARY_PREFIXES = ("ld-", "ld.", "ld64", "libc.", "libc-", "linker")  # loaders, and musl's
_TEXTS = frozenset((*OS_RELEASE, *(path for path, _, _ in RELEASE_FILES)))
_TEXT_BYTES = 64 * 1024
_PROGRAM_BYTES = 4096  # linkers put program headers and PT_INTERP there

_KINDS = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """What was kept of a member; ``content`` is its beginning, ``link`` a symlink's target."""

    mode: int
    size: int
    uid: int
    gid: int
    content: bytes = b""
    link: str = ""
    is_program: bool = False


class ArchiveReader(TreeReader):
    """The tree in an archive, as far as it was kept: other files are not there.

    ``is_complete`` is False when there were more names than memory is spent on.
    """

    def __init__(self, path: HostPath) -> None:
        """Read the whole archive. Raises DamagedArchive, UnknownFormat, TargetError."""
        self.label = path
        self.is_complete = True
        self._room = _ROOM
        self._nodes: dict[str, _Node] = {"/": _Node(stat.S_IFDIR | 0o755, 0, 0, 0)}
        with ForwardStream(path) as stream:
            refuse_other_content(stream)
            self._read_members(stream)

    def programs(self) -> Iterator[tuple[GuestPath, bytes]]:
        """Yield path and header of each program, once however many hard links it has."""
        seen = set()
        for path, node in self._nodes.items():
            if node.is_program and id(node) not in seen:
                seen.add(id(node))
                yield GuestPath(path), node.content[:SNIFF_BYTES]

    def resolve(self, path: GuestPath) -> GuestPath:
        """Follow every symlink and return the final path: see TreeReader."""
        return GuestPath(self._find(path)[0])

    def lookup(self, path: GuestPath) -> Entry | None:
        """Return what ``path`` leads to, or None: see TreeReader."""
        try:
            found, node = self._find(path)
        except TargetNotFound:
            return None
        return Entry(GuestPath(found), node.mode, node.size, node.uid, node.gid)

    def look(self, path: GuestPath, limit: int) -> tuple[GuestPath, bytes]:
        """Return the resolved path of a regular file and what was kept: see TreeReader."""
        found, node = self._find(path)
        if not stat.S_ISREG(node.mode):
            raise TargetError(
                f"Cannot read {path} in {self.label}: it is {kind_of(node.mode)}",
                "a regular file is wanted there",
            )
        return GuestPath(found), node.content[:limit]

    def open(self, path: GuestPath) -> BinaryIO:
        """Return what was kept of a regular file: see TreeReader."""
        return io.BytesIO(self.look(path, _WHOLE_LIMIT)[1])

    def listdir(self, path: GuestPath, limit: int | None = None) -> tuple[str, ...]:
        """Return the names kept in a directory: see TreeReader."""
        directory = self.resolve(path).rstrip("/") + "/"
        names = [
            name[len(directory) :]
            for name in self._nodes
            if name.startswith(directory) and "/" not in name[len(directory) :] and name != "/"
        ]
        return tuple(sorted(names)[:limit])

    def present(self, directory: GuestPath, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``names`` that the directory has: see TreeReader."""
        try:
            found = self.resolve(directory)
        except TargetError:
            return ()
        return tuple(name for name in names if posixpath.join(found, name) in self._nodes)

    def _read_members(self, stream: ForwardStream) -> None:
        for member, _ in read_members(stream):
            self._take(member, stream)
        stream.finish()

    def _take(self, member: tarfile.TarInfo, stream: ForwardStream) -> None:
        """Keep of a member what a survey needs; a later one replaces an earlier one."""
        path = self._destination(member.name)
        if path is None or path == "/":
            return
        if member.islnk():
            target = self._destination(member.linkname)
            node = None if target is None else self._nodes.get(target)
        elif member.isreg():
            node = self._read_regular(path, member, stream)
        else:
            node = _special(member)
        if node is None:
            self._nodes.pop(path, None)
        else:
            self._keep(path, node)

    def _read_regular(
        self, path: str, member: tarfile.TarInfo, stream: ForwardStream
    ) -> _Node | None:
        """Read the beginning of a file, or all of it where that is wanted; None to forget it."""
        available = _first_span(member)
        name = posixpath.basename(path)
        whole = name in _WHOLE_NAMES or name.startswith(_LIBRARY_PREFIXES)
        is_text = path in _TEXTS or "os-release" in name
        stream.seek(member.offset_data)
        stream.allow(_WHOLE_LIMIT)
        content = _read_exactly(stream, min(available, _TEXT_BYTES if is_text else _PROGRAM_BYTES))
        is_elf = content.startswith(ELFMAG)
        is_program = is_elf and may_be_program(name, stat.S_IFREG | member.mode, member.size)
        if not (whole or is_text or is_program):
            return None
        if whole and is_elf and available <= min(_WHOLE_LIMIT, self._room):
            content += _read_exactly(stream, available - len(content))
        mode = stat.S_IFREG | stat.S_IMODE(member.mode)
        return _Node(mode, member.size, member.uid, member.gid, content, is_program=is_program)

    def _keep(self, path: str, node: _Node) -> None:
        """Put a node in its place, as long as there is room, and directories above it."""
        self._room -= _NODE_COST + len(path) + len(node.link) + len(node.content)
        if self._room < 0:
            self.is_complete = False
            self._nodes.pop(path, None)
            return
        self._nodes[path] = node
        above = posixpath.dirname(path)
        if above not in self._nodes:
            self._keep(above, _Node(stat.S_IFDIR | 0o755, 0, 0, 0))

    def _destination(self, name: str) -> str | None:
        """Return where a member would be extracted to; None for names that lead outside."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts or len(parts) > _DEPTH_LIMIT or len(name) > _NAME_LIMIT:
            return None
        try:
            return posixpath.join(self._follow("/".join(parts[:-1])), *parts[-1:])
        except SymlinkLoop:
            return None

    def _find(self, path: str) -> tuple[str, _Node]:
        found = self._follow(path)
        if found not in self._nodes:
            raise TargetNotFound(f"No such file: {path} in {self.label}")
        return found, self._nodes[found]

    def _follow(self, path: str) -> str:
        """Resolve the symlinks in ``path`` as far as it exists."""
        done: list[str] = []
        pending = path.split("/")[::-1]
        links = 0
        while pending:
            name = pending.pop()
            if name == "..":
                del done[-1:]
            elif name not in ("", "."):
                done.append(name)
                node = self._nodes.get("/" + "/".join(done))
                if node is not None and node.link:
                    links += 1
                    if links > MAXSYMLINKS:
                        raise SymlinkLoop(
                            f"Cannot follow {path} in {self.label}: it is a loop of symbolic links"
                        )
                    del done[0 if node.link.startswith("/") else -1 :]
                    pending += node.link.split("/")[::-1]
        return "/" + "/".join(done)


def _special(member: tarfile.TarInfo) -> _Node | None:
    kind = _KINDS.get(member.type)
    if kind is None:
        return None
    link = member.linkname if kind == stat.S_IFLNK else ""
    if len(link) > _NAME_LIMIT or link.count("/") > _DEPTH_LIMIT:
        return None
    return _Node(kind | stat.S_IMODE(member.mode), 0, member.uid, member.gid, link=link)


def _first_span(member: tarfile.TarInfo) -> int:
    """Return how many bytes of a file's beginning stand in the archive in one piece."""
    if not member.issparse():
        return member.size
    spans: list[tuple[int, int]] = member.sparse  # type: ignore[assignment]  # typeshed: bytes
    return spans[0][1] if spans and spans[0][0] == 0 else 0


def _read_exactly(stream: ForwardStream, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise stream.cut_off()
    return content
