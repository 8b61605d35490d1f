"""The tree in a squashfs, read by unsquashfs(1): no mount and no root.

One listing of all of it, then files as they are wanted. Nothing is unpacked to disk. The listing
does not tell which names are one file: each hard link counts.
"""

from __future__ import annotations

import re
import stat

from xbuild.errors import DamagedImage, TargetError
from xbuild.image.file import ImageFile
from xbuild.image.nodes import WHOLE_LIMIT, Directory, Node, NodeReader
from xbuild.image.program import Output, run_program

_ROOT = "squashfs-root"
_LISTING_LIMIT = 64 << 20  # bytes: some 600,000 names
# What "unsquashfs -lln" prints: mode uid/gid size date time path[ -> target].
_LINE = re.compile(
    rb"^([-dlbcps])([-rwxsStT]{9}) (\d+)/(\d+)\s+(\d+) [-0-9]{10} [0-9:]{5} squashfs-root(/.*)?$",
    re.MULTILINE,
)
_KINDS = {
    b"-": stat.S_IFREG, b"d": stat.S_IFDIR, b"l": stat.S_IFLNK, b"b": stat.S_IFBLK,
    b"c": stat.S_IFCHR, b"p": stat.S_IFIFO, b"s": stat.S_IFSOCK,
}  # fmt: skip


class SquashfsReader(NodeReader):
    """The tree of a squashfs; ``image`` stays the caller's and must stay open."""

    def __init__(self, image: ImageFile, offset: int, label: str) -> None:
        """List everything. Raises DamagedImage, ImageToolMissing."""
        self._image = image
        self._offset = offset
        self._tree: dict[str, Directory] = {}
        self._targets: dict[str, str] = {}
        output = self._run("-lln", "-d", _ROOT, limit=_LISTING_LIMIT)
        root = self._take(output.stdout)
        if root is None:
            reason = output.stderr.strip().partition("\n")[0]
            raise DamagedImage(f"its squashfs is damaged: {reason or 'it lists nothing'}")
        super().__init__(label, root)

    def list_node(self, node: Node) -> Directory:
        """Return what a directory has: see NodeReader."""
        return self._tree.get(str(node.key), {})

    def link_of(self, node: Node) -> str:
        """Return a symlink's target: see NodeReader."""
        return self._targets.get(str(node.key), "")

    def content_of(self, node: Node, limit: int) -> bytes:
        """Return the beginning of a file: see NodeReader."""
        if node.size > WHOLE_LIMIT:
            raise TargetError(
                f"Cannot read a file of {node.size} bytes in {self.label}",
                "nothing that large is read here: as root, run it in place of that",
            )
        return self._cat([node])[:limit]

    def headers_of(self, nodes: list[Node]) -> list[bytes]:
        """Return the beginnings of files, b"" for those beyond what is sane to unpack."""
        chosen, room = [], WHOLE_LIMIT
        for node in sorted(nodes, key=lambda n: n.size):
            room -= node.size
            if room >= 0:
                chosen.append(node)
        content = self._cat(chosen) if chosen else b""
        headers, position = {}, 0
        for node in chosen:
            headers[node.key] = content[position : position + min(node.size, 64)]
            position += node.size
        return [headers.get(node.key, b"") for node in nodes]

    def _cat(self, nodes: list[Node]) -> bytes:
        """Return the contents of files one after another. Raises TargetError unless all are whole.

        ``unsquashfs`` goes on after a file that it cannot read, and then nothing tells which is
        which.
        """
        paths = [str(node.key) for node in nodes]
        content = self._run("-cat", "-no-wildcards", paths=paths, limit=2 * WHOLE_LIMIT).stdout
        if len(content) != sum(node.size for node in nodes):
            raise TargetError(
                f"Cannot read {paths[0]} in {self.label}: the squashfs is damaged",
                "fetch or make the image again",
            )
        return content

    def _run(self, *options: str, paths: list[str] | None = None, limit: int) -> Output:
        where = ["-o", str(self._offset), self._image.argument]
        return run_program(
            "unsquashfs",
            ["-no-progress", *options, *where, *(paths or [])],
            image=self._image,
            purpose=f"read the squashfs in {self._image.label}",
            output_limit=limit,
        )

    def _take(self, listing: bytes) -> Node | None:
        """Keep what a listing says; return the root directory's node."""
        root = None
        for kind, rights, uid, gid, size, raw in _LINE.findall(listing):
            path, _, target = raw.decode("utf-8", "surrogateescape").partition(" -> ")
            node = Node(path or "/", _KINDS[kind] | _bits(rights), int(size), int(uid), int(gid))
            if not path:
                root = node
                continue
            above, _, name = path.rpartition("/")
            self._tree.setdefault(above or "/", {})[name] = node
            if kind == b"l":
                self._targets[path] = target
        return root


def _bits(rights: bytes) -> int:
    """Return the nine permission bits of ls's letters; S and T stand for no x."""
    return sum(1 << (8 - place) for place, letter in enumerate(rights) if letter not in b"-ST")
