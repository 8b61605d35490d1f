"""What a tree is made of, in words that are the same on every machine and at every time.

Its packages by their databases; the files themselves where it has none. No times, no owners and no
numbers of the file system: two trees that were unpacked from one archive have one inventory.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator

from xbuild.errors import TargetError
from xbuild.record import GuestPath
from xbuild.tree.dpkg import LIMIT, read_packages
from xbuild.tree.resolve import DirectoryReader, TreeReader, target_error

_APK = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
_APK_FIELDS = ("P:", "V:", "A:", "C:")  # name, version, architecture, checksum: apk-tools' database
_PACMAN = GuestPath("/var/lib/pacman/local")
_PORTAGE = GuestPath("/var/db/pkg")
_PORTAGE_FILES = ("SLOT", "USE", "CFLAGS", "CXXFLAGS", "repository")
_SMALL = 65536
# Other for each run, or each machine: what is covered or made anew, and databases with dates.
_PASSED_OVER = frozenset(
    (
        *("./dev", "./proc", "./sys", "./run", "./tmp", "./lost+found"),
        *("./var/cache", "./var/log", "./var/tmp", "./var/run", "./var/lock"),
        *("./var/lib/rpm", "./usr/lib/sysimage", "./var/lib/dnf"),
    )
)


def read_inventory(reader: TreeReader) -> tuple[str, ...]:
    """Return lines in a fixed order.

    Raises TargetError where a file cannot be read, and for a tree without packages that is not in
    a directory: a program that reads a file system reads no thousands of files.
    """
    packages = sorted({*_dpkg(reader), *_apk(reader), *_pacman(reader), *_portage(reader)})
    if packages:
        return tuple(packages)
    if not isinstance(reader, DirectoryReader):
        raise TargetError(
            f"{reader.label} has no database of packages, so that every file of it would be read",
            "as root the kernel reads it; or make a directory of it, and use that",
        )
    return tuple(_files(reader))


def _dpkg(reader: TreeReader) -> Iterator[str]:
    for package in read_packages(reader):
        yield f"dpkg {package.name} {package.architecture} {package.version}"


def _apk(reader: TreeReader) -> Iterator[str]:
    for path in _APK:
        for paragraph in _text(reader, path, LIMIT).split("\n\n"):
            fields = [line for line in paragraph.splitlines() if line[:2] in _APK_FIELDS]
            if fields:
                yield f"apk {' '.join(sorted(fields))}"


def _pacman(reader: TreeReader) -> Iterator[str]:
    for name in _names(reader, _PACMAN):
        if name != "ALPM_DB_VERSION":
            yield f"pacman {name}"


def _portage(reader: TreeReader) -> Iterator[str]:
    for category in _names(reader, _PORTAGE):
        for name in _names(reader, GuestPath(f"{_PORTAGE}/{category}")):
            place = f"{_PORTAGE}/{category}/{name}"
            said = (_text(reader, f"{place}/{file}", _SMALL).split() for file in _PORTAGE_FILES)
            yield f"portage {category}/{name} {list(said)}"


def _names(reader: TreeReader, directory: GuestPath) -> tuple[str, ...]:
    try:
        return reader.listdir(directory)
    except TargetError:
        return ()


def _text(reader: TreeReader, path: str, limit: int) -> str:
    try:
        return reader.read(GuestPath(path), limit).decode("utf-8", "surrogateescape")
    except TargetError:
        return ""


def _files(reader: DirectoryReader) -> Iterator[str]:
    """Yield a line for each file: its place, mode, and content or where it leads."""

    def fail(error: OSError) -> None:
        raise target_error(str(error.filename), error, f" in {reader.label}") from error

    for place, directories, names, fd in os.fwalk(".", dir_fd=reader.fd, onerror=fail):
        directories[:] = sorted(d for d in directories if f"{place}/{d}" not in _PASSED_OVER)
        for name in sorted((*directories, *names)):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            mode = status.st_mode
            if stat.S_ISLNK(mode):
                yield f"link {place}/{name} {os.readlink(name, dir_fd=fd)}"
            elif stat.S_ISREG(mode):
                digest = _digest(reader, f"{place}/{name}", name, fd)
                yield f"file {place}/{name} {mode & 0o7777:o} {digest}"
            elif stat.S_ISDIR(mode):
                yield f"directory {place}/{name} {mode & 0o7777:o}"


def _digest(reader: DirectoryReader, path: str, name: str, directory_fd: int) -> str:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    except OSError as error:
        raise target_error(path, error, f" in {reader.label}") from error
    with open(fd, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
