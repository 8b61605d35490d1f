"""Programs counted by architecture: from a bounded sample, as every start of a container needs.

Counting all of a tree is ``xbuild.tree.walk``'s.
"""

from __future__ import annotations

import os

from xbuild.binary.arch import arch_of
from xbuild.binary.elf import ELFMAG, SNIFF_BYTES, sniff
from xbuild.errors import TargetError, TargetNotFound
from xbuild.record import GuestPath
from xbuild.tree.resolve import READ_FLAGS, target_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xbuild.binary.arch import Arch
    from xbuild.tree.resolve import DirectoryReader

# The root is for trees of one static program, and for initramfs with their /init. Most programs of
# most trees are in the last ones, which get the share that those before left.
PROGRAM_DIRECTORIES = tuple(
    GuestPath(d)
    for d in ("/", "/system/bin", "/usr/local/bin", "/sbin", "/usr/sbin", "/bin", "/usr/bin")
)
# Directory entries looked at per directory: one getdents64(2) returns about as many.
ENTRIES_PER_DIRECTORY = 1024


class Census:
    """What the programs met so far are: how many of each architecture, and one of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, tuple[Arch, GuestPath]] = {}
        self.unknown_machine: int | None = None
        self.is_complete = False
        self.unreadable: TargetError | None = None
        self._known: dict[bytes, Arch | None] = {}

    def add(self, header: bytes, path: GuestPath) -> None:
        """Count a program by its header; what is no ELF program is left out."""
        arch = self.identify(header)
        if arch is not None:
            self.counts[arch.name] = self.counts.get(arch.name, 0) + 1
            self.examples.setdefault(arch.name, (arch, path))

    def meet(self, arch: Arch, path: GuestPath) -> None:
        """Have an architecture counted at least once."""
        self.counts.setdefault(arch.name, 1)
        self.examples.setdefault(arch.name, (arch, path))

    def identify(self, header: bytes) -> Arch | None:
        """Return the architecture of an ELF program's header; None for all else."""
        if header[:4] != ELFMAG:
            return None
        flags_at = 36 if header[4:5] == b"\1" else 48  # e_flags in Elf32_Ehdr, Elf64_Ehdr
        key = header[:20] + header[flags_at : flags_at + 4]
        if key not in self._known:
            self._known[key] = self._identify(header)
        return self._known[key]

    def _identify(self, header: bytes) -> Arch | None:
        ident = sniff(header)
        if ident is None or not ident.is_program:
            return None
        arch = arch_of(ident)
        if arch is None and self.unknown_machine is None:
            self.unknown_machine = ident.machine
        return arch

    def note_unreadable(self, error: TargetError) -> None:
        """Keep the first reason for which something could not be looked at."""
        self.unreadable = self.unreadable or error

    def most_common(self) -> str | None:
        """Return the name of the architecture with the most programs."""
        return max(self.counts, key=lambda name: self.counts[name], default=None)


def take_sample(reader: DirectoryReader, census: Census, headers: int) -> None:
    """Count the programs among at most ``headers`` files of the usual directories.

    The cost is bounded by ``headers`` and ENTRIES_PER_DIRECTORY, whatever the directories hold.
    A tree whose programs are all symlinks to elsewhere has those followed.
    """
    sampler = _Sampler(reader, census)
    directories = sampler.open_directories()
    left = headers
    try:
        for number, (directory, fd) in enumerate(directories):
            left -= sampler.read_headers(directory, fd, left // (len(directories) - number))
    finally:
        for _, fd in directories:
            os.close(fd)
    if not census.counts:
        sampler.follow_links(left)


class _Sampler:
    """One sample: directories and hard links met once, however many names lead to them."""

    def __init__(self, reader: DirectoryReader, census: Census) -> None:
        self._reader = reader
        self._census = census
        self._seen: set[tuple[int, int]] = set()  # st_dev, st_ino
        self._links: list[GuestPath] = []

    def open_directories(self) -> list[tuple[GuestPath, int]]:
        """Open those of PROGRAM_DIRECTORIES that are there; the caller closes the descriptors."""
        directories = []
        for directory in PROGRAM_DIRECTORIES:
            try:
                fd = self._reader.open_directory(directory)
            except TargetNotFound:
                continue
            except TargetError as error:
                self._census.note_unreadable(error)
                continue
            status = os.fstat(fd)
            if self._is_new(status.st_dev, status.st_ino):
                directories.append((directory, fd))
            else:
                os.close(fd)
        return directories

    def read_headers(self, directory: GuestPath, fd: int, budget: int) -> int:
        """Read at most ``budget`` headers in a directory and return how many it were."""
        try:
            return self._read_headers(fd, directory.rstrip("/"), budget)
        except OSError as error:
            self._census.note_unreadable(target_error(directory, error))
            return 0

    def _read_headers(self, fd: int, directory: str, budget: int) -> int:
        device = os.fstat(fd).st_dev
        count = 0
        with os.scandir(fd) as entries:
            for _, entry in zip(range(ENTRIES_PER_DIRECTORY), entries, strict=False):
                if count == budget:
                    break
                if entry.is_symlink():
                    self._links.append(GuestPath(f"{directory}/{entry.name}"))
                elif entry.is_file(follow_symlinks=False) and self._is_new(device, entry.inode()):
                    header = read_header(entry.name, fd)
                    self._census.add(header, GuestPath(f"{directory}/{entry.name}"))
                    count += 1
        return count

    def follow_links(self, budget: int) -> None:
        """Count what the symlinks met so far lead to."""
        targets: set[GuestPath] = set()
        for link in self._links[:budget]:
            try:
                target, header = self._reader.look(link, SNIFF_BYTES)
            except TargetError:
                continue
            if target not in targets:
                targets.add(target)
                self._census.add(header, target)

    def _is_new(self, device: int, inode: int) -> bool:
        key = (device, inode)
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new


def read_header(name: str, directory_fd: int) -> bytes:
    """Return the first bytes of a file that is regular by its directory entry; b"" if unreadable.

    Should a FIFO have taken its place meanwhile, opening does not wait for its writer.
    """
    try:
        fd = os.open(name, READ_FLAGS, dir_fd=directory_fd)
    except OSError:
        return b""
    try:
        return os.read(fd, SNIFF_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)
