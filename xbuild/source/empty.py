"""A tree with busybox and the usual directories, and nothing else: for tests and first steps."""

from __future__ import annotations

import os
import tarfile

from xbuild.record import HostPath
from xbuild.source.apt import Progress
from xbuild.source.debian import default_suites, fetch_debian_archive

_DIRECTORIES = {
    **dict.fromkeys(("bin", "dev", "etc", "home", "proc", "run", "sys", "usr", "var"), 0o755),
    **dict.fromkeys(("usr/bin", "usr/sbin", "sbin", "mnt", "srv"), 0o755),
    "root": 0o700,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
}
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "",
    "etc/resolv.conf": "",
}
# Those of busybox's applets that every build of it has.
_APPLETS = (
    *("ash", "awk", "basename", "cat", "chgrp", "chmod", "chown", "cmp", "cp", "cut", "date", "dd"),
    *("df", "diff", "dirname", "du", "echo", "env", "expr", "false", "find", "grep", "gunzip"),
    *("gzip", "head", "hostname", "id", "install", "kill", "ln", "ls", "md5sum", "mkdir", "mknod"),
    *("mktemp", "mount", "mv", "od", "printf", "ps", "pwd", "readlink", "realpath", "rm", "rmdir"),
    *("sed", "seq", "sh", "sha256sum", "sleep", "sort", "stat", "stty", "sync", "tail", "tar"),
    *("tee", "test", "touch", "tr", "true", "tty", "umount", "uname", "uniq", "vi", "wc", "wget"),
    *("which", "whoami", "xargs", "yes"),
)


def fetch_busybox(architecture: str, progress: Progress) -> bytes:
    """Return Debian's static busybox of an architecture. Raises SourceError."""
    packages = ("busybox-static",)
    suites = default_suites(architecture)
    archive = fetch_debian_archive(architecture, suites, packages, progress=progress)
    with tarfile.open(archive) as members:
        program = members.extractfile("usr/bin/busybox")
        assert program is not None
        return program.read()


def make_empty_tree(tree: HostPath, busybox: bytes) -> None:
    """Fill the empty directory ``tree``; all in it belongs to who calls."""
    for name, mode in _DIRECTORIES.items():
        os.mkdir(f"{tree}/{name}")
        os.chmod(f"{tree}/{name}", mode)
    for name, text in _FILES.items():
        with open(f"{tree}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    with open(f"{tree}/bin/busybox", "wb") as file:
        file.write(busybox)
        os.fchmod(file.fileno(), 0o755)
    for name in _APPLETS:
        os.symlink("busybox", f"{tree}/bin/{name}")
