"""Trees inside file systems that nobody mounted, read node by node by some other program.

Paths are resolved here, inside the tree as TreeReader promises, so that such a program only has to
list a directory, read a symlink and read a file. What it says is the image's word: names and
sizes are checked where they are used.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from xbuild.binary.elf import SNIFF_BYTES
from xbuild.errors import TargetError, TargetNotFound
from xbuild.record import GuestPath, Record
from xbuild.tree.census import ENTRIES_PER_DIRECTORY, PROGRAM_DIRECTORIES
from xbuild.tree.path_walk import MAXSYMLINKS, kind_of
from xbuild.tree.resolve import Entry, TreeReader, target_error
from xbuild.tree.walk import PSEUDO_FILE_SYSTEMS, may_be_program

WHOLE_LIMIT = 8 << 20  # bytes of one file
LINK_LIMIT = 4096  # PATH_MAX


class Node(Record):
    """A file, directory or symlink; ``key`` is whatever its file system knows it by."""

    key: int | str
    mode: int
    size: int
    uid: int = 0
    gid: int = 0


Directory = dict[str, Node]


class NodeReader(TreeReader):
    """A tree of nodes. A subclass lists directories, reads links and reads contents."""

    def __init__(self, label: str, root: Node) -> None:
        self.label = label
        self.root = root
        self._directories: dict[int | str, Directory] = {}
        self._links: dict[int | str, str] = {}

    def list_node(self, node: Node) -> Directory:
        """Return what a directory has, without "." and "..". Raises TargetError."""
        raise NotImplementedError

    def link_of(self, node: Node) -> str:
        """Return a symlink's target. Raises TargetError."""
        raise NotImplementedError

    def content_of(self, node: Node, limit: int) -> bytes:
        """Return the first ``limit`` bytes of a regular file. Raises TargetError."""
        raise NotImplementedError

    def list_nodes(self, nodes: list[Node]) -> list[Directory]:
        """Return what each of several directories has. Raises TargetError."""
        return [self.list_node(node) for node in nodes]

    def headers_of(self, nodes: list[Node]) -> list[bytes]:
        """Return the beginnings of regular files, b"" where one cannot be read."""
        headers = []
        for node in nodes:
            try:
                headers.append(self.content_of(node, SNIFF_BYTES))
            except TargetError:
                headers.append(b"")
        return headers

    def sample(self, limit: int) -> Iterator[tuple[GuestPath, bytes]]:
        """Yield path and header of at most ``limit`` files of the usual directories of programs."""
        paths: list[GuestPath] = []
        nodes: list[Node] = []
        seen: set[int | str] = set()
        for number, directory in enumerate(PROGRAM_DIRECTORIES):
            share = (limit - len(nodes)) // (len(PROGRAM_DIRECTORIES) - number)
            for path, node in self._programs_in(directory, seen)[:share]:
                paths.append(path)
                nodes.append(node)
        yield from zip(paths, self.headers_of(nodes), strict=True)

    def every(self) -> Iterator[tuple[GuestPath, bytes]]:
        """Yield path and header of every file that may be a program, hard links once.

        Raises TargetError where a directory cannot be read or there is no end of them.
        """
        level = [(GuestPath(""), self.root)]
        seen: set[int | str] = {self.root.key}
        while level:
            listings = self.list_nodes([node for _, node in level])
            below, paths, nodes = [], [], []
            for (above, _), entries in zip(level, listings, strict=True):
                for name, node in entries.items():
                    is_new, path = node.key not in seen, GuestPath(f"{above}/{name}")
                    if is_new and stat.S_ISDIR(node.mode) and path not in PSEUDO_FILE_SYSTEMS:
                        below.append((path, node))
                    elif is_new and may_be_program(name, node.mode, node.size):
                        paths.append(path)
                        nodes.append(node)
                    seen.add(node.key)
            yield from zip(paths, self.headers_of(nodes), strict=True)
            level = below

    def _programs_in(
        self, directory: GuestPath, seen: set[int | str]
    ) -> list[tuple[GuestPath, Node]]:
        try:
            path, node = self._find(directory)
            entries = self._entries(node) if node.key not in seen else {}
        except TargetError:
            return []
        seen.add(node.key)
        found = []
        for name, entry in list(entries.items())[:ENTRIES_PER_DIRECTORY]:
            if may_be_program(name, entry.mode, entry.size) and entry.key not in seen:
                seen.add(entry.key)
                found.append((GuestPath(f"{path.rstrip('/')}/{name}"), entry))
        return found

    def resolve(self, path: GuestPath) -> GuestPath:
        """Follow every symlink and return the final path: see TreeReader."""
        return self._find(path)[0]

    def lookup(self, path: GuestPath) -> Entry | None:
        """Return what ``path`` leads to, or None when there is nothing: see TreeReader."""
        try:
            found, node = self._find(path)
        except TargetNotFound:
            return None
        return Entry(found, node.mode, node.size, node.uid, node.gid)

    def look(self, path: GuestPath, limit: int) -> tuple[GuestPath, bytes]:
        """Return the resolved path of a regular file and its beginning: see TreeReader."""
        found, node = self._find(path)
        if not stat.S_ISREG(node.mode):
            raise TargetError(
                f"Cannot read {path} in {self.label}: it is {kind_of(node.mode)}",
                "a regular file is wanted there",
            )
        return found, self.content_of(node, limit)

    def open(self, path: GuestPath) -> BinaryIO:
        """Read a regular file into memory, as far as is sane: see TreeReader."""
        return io.BytesIO(self.look(path, WHOLE_LIMIT)[1])

    def listdir(self, path: GuestPath, limit: int | None = None) -> tuple[str, ...]:
        """Return the names in a directory: see TreeReader."""
        return tuple(sorted(list(self._entries(self._find(path)[1]))[:limit]))

    def present(self, directory: GuestPath, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``names`` that the directory has: see TreeReader."""
        try:
            entries = self._entries(self._find(directory)[1])
        except TargetError:
            return ()
        return tuple(name for name in names if name in entries)

    def mode_of(self, path: GuestPath) -> int | None:
        """Return the st_mode of what is at ``path``: see TreeReader."""
        node = self._at(path)
        return None if node is None else node.mode

    def link_at(self, path: GuestPath) -> str:
        """Return where a symlink leads: see TreeReader."""
        node = self._at(path)
        if node is None:
            raise self._error(path, errno.ENOENT)
        return self._link(node)

    def _at(self, path: GuestPath) -> Node | None:
        directory, _, name = path.rpartition("/")
        try:
            above = self._find(directory)[1]
        except TargetNotFound:
            return None
        return self._entries(above).get(name) if stat.S_ISDIR(above.mode) else None

    def _entries(self, node: Node) -> Directory:
        if not stat.S_ISDIR(node.mode):
            raise self._error("it", errno.ENOTDIR)
        if node.key not in self._directories:
            self._directories[node.key] = self.list_node(node)
        return self._directories[node.key]

    def _link(self, node: Node) -> str:
        if node.key not in self._links:
            self._links[node.key] = self.link_of(node)[:LINK_LIMIT]
        return self._links[node.key]

    def _find(self, path: str) -> tuple[GuestPath, Node]:
        """Go to ``path`` from the root as path_resolution(7) would, "/.." being "/"."""
        nodes, names = [self.root], [""]
        pending = path.split("/")[::-1]
        links = 0
        while pending:
            name = pending.pop()
            entries = self._searched(nodes[-1], path)
            if name == ".." and len(nodes) > 1:
                nodes.pop()
                names.pop()
            if name in ("", ".", ".."):
                continue
            node = entries().get(name)
            if node is None:
                raise self._error(path, errno.ENOENT)
            if not stat.S_ISLNK(node.mode):
                nodes.append(node)
                names.append(name)
                continue
            links += 1
            if links > MAXSYMLINKS:
                raise self._error(path, errno.ELOOP)
            target = self._link(node)
            if target.startswith("/"):
                del nodes[1:], names[1:]
            pending += target.split("/")[::-1]
        return GuestPath("/".join(names) or "/"), nodes[-1]

    def _searched(self, node: Node, path: str) -> _Entries:
        if not stat.S_ISDIR(node.mode):
            raise self._error(path, errno.ENOTDIR)
        return _Entries(self, node)

    def _error(self, path: str, number: int) -> TargetError:
        return target_error(path, OSError(number, os.strerror(number)), f" in {self.label}")


class _Entries:
    """The entries of a directory, listed when they are wanted."""

    def __init__(self, reader: NodeReader, node: Node) -> None:
        self._reader = reader
        self._node = node

    def __call__(self) -> Directory:
        return self._reader._entries(self._node)
