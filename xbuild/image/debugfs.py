"""The tree in an ext2, ext3 or ext4 file system, read by debugfs(8): no mount and no root.

Each question is one debugfs process that reads several commands; opened with -c it reads no
bitmaps, which keeps a start at milliseconds whatever the file system's size, and never writes. Its
output is told apart by marks that nothing in an image can foresee. Headers of many programs are
read by their first block's number, in one go.
"""

from __future__ import annotations

import re
import secrets
import stat

from xbuild.errors import DamagedImage, TargetError
from xbuild.image.file import ImageFile
from xbuild.image.filesystem import ext_argument
from xbuild.image.nodes import WHOLE_LIMIT, Directory, Node, NodeReader
from xbuild.image.program import run_program

_ROOT_INODE = 2
_BLOCK_SIZES = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
# What "ls -p" prints: /inode/octal mode/uid/gid/name/size/, the size empty for directories.
_ENTRY = re.compile(rb"/(\d+)/(\d{6,7})/(\d+)/(\d+)/([^/]*)/(\d*)/\n")
_FACTS = re.compile(rb"Mode:\s+(\d+).*?User:\s+(\d+)\s+Group:\s+(\d+).*?Size: (\d+)", re.DOTALL)
_KIND = re.compile(rb"Type: (\w[\w ]*?)\s+Mode:")
_FAST_LINK = re.compile(rb'^Fast link dest: "(.*)"\s*\Z', re.DOTALL | re.MULTILINE)


class ExtReader(NodeReader):
    """The tree of an ext file system; ``image`` stays the caller's and must stay open."""

    def __init__(self, image: ImageFile, offset: int, size: int, label: str) -> None:
        """Read the root directory's inode. Raises DamagedImage, ImageToolMissing."""
        self._image = image
        self._offset = offset
        self._size = size
        self._complaint = ""
        self._block = self._block_size()
        (text,) = self._ask(f"stat <{_ROOT_INODE}>")
        facts, kind = _FACTS.search(text), _KIND.search(text)
        if facts is None or kind is None or kind[1] != b"directory":
            raise DamagedImage(
                f"its file system is damaged: {self._complaint or 'it has no root directory'}",
                f"on a copy: e2fsck -f 'COPY?offset={offset}'",
            )
        mode = stat.S_IFDIR | int(facts[1], 8)
        super().__init__(label, Node(_ROOT_INODE, mode, 0, int(facts[2]), int(facts[3])))

    def list_node(self, node: Node) -> Directory:
        """List a directory: see NodeReader."""
        (text,) = self._ask(f"ls -p <{node.key}>")
        entries = {}
        for inode, mode, uid, gid, name, size in _ENTRY.findall(text):
            if name not in (b"", b".", b"..") and inode != b"0":
                key = name.decode("utf-8", "surrogateescape")
                entries[key] = Node(int(inode), int(mode, 8), int(size or 0), int(uid), int(gid))
        return entries

    def link_of(self, node: Node) -> str:
        """Return a symlink's target, from its inode or from its block: see NodeReader."""
        (text,) = self._ask(f"stat <{node.key}>")
        fast = _FAST_LINK.search(text)
        content = fast[1] if fast else self.content_of(node, node.size)
        return content.decode("utf-8", "surrogateescape")

    def content_of(self, node: Node, limit: int) -> bytes:
        """Return the beginning of a file: see NodeReader."""
        wanted = min(limit, node.size)
        if wanted <= self._block:
            header = self._first_blocks([node])[0]
            if header is not None:
                return header[:wanted]
        if node.size > WHOLE_LIMIT:
            raise TargetError(
                f"Cannot read a file of {node.size} bytes in {self.label}",
                "nothing that large is read here: as root, run it in place of that",
            )
        (content,) = self._ask(f"cat <{node.key}>")
        return content[:wanted]

    def headers_of(self, nodes: list[Node]) -> list[bytes]:
        """Return the beginnings of files: see NodeReader."""
        return [block or b"" for block in self._first_blocks(nodes)]

    def _first_blocks(self, nodes: list[Node]) -> list[bytes | None]:
        """Return the first block of each file, None where it has none of its own (inline data)."""
        answers = self._ask(*(f"bmap <{node.key}> 0" for node in nodes))
        return [self._read_block(a, n) for a, n in zip(answers, nodes, strict=True)]

    def _read_block(self, answer: bytes, node: Node) -> bytes | None:
        number = answer.strip()
        if not number.isdigit():
            return None
        if int(number) == 0:  # a hole
            return bytes(min(self._block, node.size))
        start = int(number) * self._block
        if start + self._block > self._size:
            return None
        return self._image.pread(min(self._block, node.size), self._offset + start)

    def _block_size(self) -> int:
        """Read s_log_block_size (Documentation/filesystems/ext4/super.rst)."""
        field = self._image.pread(4, self._offset + 1024 + 0x18)
        power = int.from_bytes(field, "little")
        if power >= len(_BLOCK_SIZES):
            raise DamagedImage("its file system is damaged: its block size is nonsense")
        return _BLOCK_SIZES[power]

    def _ask(self, *commands: str) -> list[bytes]:
        """Return what debugfs answers to each command, b"" where it complains.

        It repeats each command on its output before the answer, the unknown ones too: those are
        the marks.
        """
        mark = secrets.token_hex(16)
        lines = [line for number, c in enumerate(commands) for line in (c, f"{mark}-{number}")]
        done = run_program(
            "debugfs",
            ["-c", "-f", "-", ext_argument(self._image, self._offset)],
            image=self._image,
            purpose=f"read the file system in {self._image.label}",
            commands="".join(f"{line}\n" for line in lines).encode(),
            environment={"DEBUGFS_PAGER": "__none__"},
        )
        self._complaint = _why_unopened(done.stderr)
        answers, output = [], done.stdout
        for number, command in enumerate(commands):
            answer, found, output = output.partition(f"debugfs: {mark}-{number}\n".encode())
            # Before the first one it may say what it thinks of the superblock.
            _, began, body = answer.partition(f"debugfs: {command}\n".encode())
            answers.append(body if found and began else b"")
        return answers


def _directory(text: bytes) -> Directory:
    entries = {}
    for inode, mode, uid, gid, name, size in _ENTRY.findall(text):
        if name not in (b"", b".", b"..") and inode != b"0":
            key = name.decode("utf-8", "surrogateescape")
            entries[key] = Node(int(inode), int(mode, 8), int(size or 0), int(uid), int(gid))
    return entries


def _why_unopened(complaints: str) -> str:
    """Return why debugfs could not open the file system, "" where it could.

    It says "debugfs: REASON while trying to open FILE".
    """
    for line in complaints.splitlines():
        reason, found, _ = line.partition(" while trying to open ")
        if found:
            return reason.removeprefix("debugfs: ")
    return ""
