"""Turn .deb files into one tar archive of a root filesystem, unpacked but not configured.

No maintainer script runs: they are the foreign architecture's programs. What the scripts of the
base packages would do and nothing works without (passwd, /etc/profile, alternatives, the links of
merged /usr) is done here; dpkg's database says "unpacked", so that ``dpkg --configure -a`` inside
can do the rest. The archive carries the packages' own owners and modes whoever makes it, and is
the same bytes for the same packages.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
import subprocess
import tarfile
from collections.abc import Iterator
from typing import IO

from xbuild.errors import DamagedPackage
from xbuild.record import HostPath
from xbuild.source.apt import Progress
from xbuild.source.dpkg_database import Package, database_files

# As the official slim images do; licences stay.
_LEFT_OUT = re.compile(
    r"usr/share/(?:man|info|lintian|linda|locale|groff|gnome/help|zoneinfo|bug)/."
    r"|usr/share/doc/(?:[^/]+/)(?!copyright$)."
)
# Directories that stand under /usr since bookworm, whatever a package says.
_MERGED = re.compile(r"(?:bin|sbin|lib(?:32|64|x32|o32|n32)?)(?=/|$)")

_MADE_FROM = {
    "etc/passwd": "usr/share/base-passwd/passwd.master",
    "etc/group": "usr/share/base-passwd/group.master",
    "etc/profile": "usr/share/base-files/profile",
    "etc/motd": "usr/share/base-files/motd",
    "etc/nsswitch.conf": "usr/share/libc-bin/nsswitch.conf",
    "root/.profile": "usr/share/base-files/dot.profile",
    "root/.bashrc": "usr/share/base-files/dot.bashrc",
}
_ALTERNATIVES = {"awk": "mawk", "cc": "gcc", "c++": "g++"}
_DIRECTORIES = (
    *("mnt", "srv", "opt", "media", "home", "var/tmp", "var/opt", "etc/opt", "etc/alternatives"),
    *("usr/local", "usr/local/bin", "usr/local/sbin", "usr/local/lib", "usr/local/share"),
)
_EMPTY_FILES = ("etc/resolv.conf", "etc/hosts")
# base-files ships directories, which its postinst replaces.
_LINKS = {"var/run": "/run", "var/lock": "/run/lock"}


def assemble(debs: tuple[HostPath, ...], output: HostPath, progress: Progress) -> None:
    """Write the tree that ``debs`` make up to the tar archive ``output``.

    Raises DamagedPackage when dpkg-deb cannot read one of them.
    """
    with tarfile.open(output, "w", format=tarfile.GNU_FORMAT) as archive:
        tree = _TreeArchive(archive)
        packages = []
        for number, deb in enumerate(debs):
            progress(f"unpacking {os.path.basename(deb)}", number / len(debs))
            packages.append(_add_package(tree, deb))
        _add_base_configuration(tree)
        for name, content, mode in database_files(packages):
            tree.add_file(name, content, mode)
        tree.add_merged_links()


def merged_path(name: str) -> str:
    """Map a path of a package (no leading slash) to where it is on a merged-/usr system."""
    return "usr/" + name if _MERGED.match(name) else name


class _TreeArchive:
    """The archive being written: knows which paths are in, and keeps the few files to copy."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._seen: set[str] = {"."}
        self._merged: set[str] = set()
        self._mtime = 0
        self.kept: dict[str, bytes] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._seen

    def add_member(self, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        """Add a package's file at its place; the first package to bring a path wins."""
        name = posixpath.normpath(member.name)
        top = _MERGED.match(name)
        if top:
            self._merged.add(top[0])
        if _LEFT_OUT.match(name) or name in _LINKS or (top and top[0] == name):
            return
        member.name = merged_path(name)
        if member.islnk():
            member.linkname = merged_path(posixpath.normpath(member.linkname))
        if member.name in self._seen or _points_at_itself(member):
            return
        self._seen.add(member.name)
        self._mtime = max(self._mtime, int(member.mtime))
        if content and member.name in _MADE_FROM.values():
            self.kept[member.name] = content.read()
            content = io.BytesIO(self.kept[member.name])
        self._archive.addfile(member, content)

    def add_file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self.add_directory(posixpath.dirname(name))
        member = self._new_member(name, tarfile.REGTYPE, mode)
        member.size = len(content)
        self._archive.addfile(member, io.BytesIO(content))

    def add_directory(self, name: str, mode: int = 0o755) -> None:
        if name in self._seen or not name:
            return
        self.add_directory(posixpath.dirname(name))
        self._archive.addfile(self._new_member(name, tarfile.DIRTYPE, mode))

    def add_symlink(self, name: str, target: str) -> None:
        member = self._new_member(name, tarfile.SYMTYPE, 0o777)
        member.linkname = target
        self._archive.addfile(member)

    def add_merged_links(self) -> None:
        for name in sorted(self._merged):
            self.add_directory("usr/" + name)
            self.add_symlink(name, "usr/" + name)

    def _new_member(self, name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
        self._seen.add(name)
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.mtime = kind, mode, self._mtime
        member.uname = member.gname = "root"
        return member


def _points_at_itself(member: tarfile.TarInfo) -> bool:
    """Tell whether merging turned a compatibility link (/usr/bin/touch) into a loop."""
    if not member.issym():
        return False
    target = posixpath.join("/", posixpath.dirname(member.name), member.linkname)
    return merged_path(posixpath.normpath(target).lstrip("/")) == member.name


def _add_package(tree: _TreeArchive, deb: HostPath) -> Package:
    paths = []
    with _open_deb(deb, "--fsys-tarfile") as members:
        for member in members:
            name = posixpath.normpath(member.name)
            paths.append("/." if name == "." else "/" + name)
            tree.add_member(member, members.extractfile(member) if member.isreg() else None)
    control = {}
    with _open_deb(deb, "--ctrl-tarfile") as members:
        for member in members:
            content = members.extractfile(member) if member.isreg() else None
            if content:
                control[posixpath.basename(member.name)] = content.read()
    return Package(control, tuple(paths))


@contextlib.contextmanager
def _open_deb(deb: HostPath, part: str) -> Iterator[tarfile.TarFile]:
    with subprocess.Popen(
        ["dpkg-deb", part, deb], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        reason = ""
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as members:
                yield members
            # The padding behind the archive's end: unread, dpkg-deb would die of SIGPIPE.
            while process.stdout.read(1 << 16):
                pass
        except tarfile.TarError as error:
            reason = str(error)
        reason = process.stderr.read().decode(errors="replace").strip() or reason
    if process.returncode != 0 or reason:
        raise DamagedPackage(
            f"Cannot unpack {deb}: {reason}", "remove the file; it is fetched again"
        )


def _add_base_configuration(tree: _TreeArchive) -> None:
    for name in _DIRECTORIES:
        tree.add_directory(name)
    for name, original in _MADE_FROM.items():
        if original in tree.kept and name not in tree:
            tree.add_file(name, tree.kept[original])
    for name in _EMPTY_FILES:
        if name not in tree:
            tree.add_file(name, b"")
    for name, program in _ALTERNATIVES.items():
        if f"usr/bin/{program}" in tree and f"usr/bin/{name}" not in tree:
            tree.add_symlink(f"usr/bin/{name}", f"/etc/alternatives/{name}")
            tree.add_symlink(f"etc/alternatives/{name}", f"/usr/bin/{program}")
    if "usr/bin/dash" in tree and "usr/bin/sh" not in tree:
        tree.add_symlink("usr/bin/sh", "dash")
    if "usr/lib/os-release" in tree and "etc/os-release" not in tree:
        tree.add_symlink("etc/os-release", "../usr/lib/os-release")
    for name, target in _LINKS.items():
        tree.add_symlink(name, target)
