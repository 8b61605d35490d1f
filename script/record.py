"""What script/record does: real commands on a terminal of their own, in a real arm64 tree.

What is shown is what the commands print; prompts and typing are added. The home directory is a
temporary one, shown as /home/me. Exits 0; 1 where ``--check`` finds other content; 3 without a
tree to record in.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

from script.recording import COLUMNS, ROWS, Event, content_of, draw, read_cast, write_cast
from xbuild.errors import SourceError
from xbuild.record import HostPath
from xbuild.source.debian import (
    BASE_PACKAGES,
    COMPILER_PACKAGES,
    default_suites,
    fetch_debian_archive,
    unpack_tree,
)

TITLE = "xbuild: an arm64 tree on this machine"
SHOWN_HOME = "/home/me"
SESSION = (
    "# an x86-64 machine, and a root file system of another",
    "uname -m; xbuild inspect ~/pi | head -1",
    "# work in it: nothing to set up, no root needed",
    "xbuild run ~/pi -- sh -c 'uname -m; . /etc/os-release; echo $PRETTY_NAME'",
    "# compile with its own compiler",
    "cat hello.c",
    "xbuild run --bind .:/mnt --chdir /mnt ~/pi -- gcc -O2 -o hello hello.c",
    "xbuild inspect hello | head -1",
    "xbuild run --bind .:/mnt --chdir /mnt ~/pi -- ./hello",
    "# try what you like: changes are gone afterwards",
    "xbuild run --ephemeral ~/pi -- sh -c 'rm -rf /home /srv; ls -m /'",
    "ls -m ~/pi",
    "grep ~/pi /proc/mounts || echo nothing is mounted",
)
_HELLO = """\
#include <stdio.h>
#include <sys/utsname.h>

int main(void)
{
    struct utsname machine;
    uname(&machine);
    printf("Hello from %s\\n", machine.machine);
    return 0;
}
"""
_PLACE = Path(__file__).resolve().parent.parent / "docs" / "recording"
_TYPING_S, _BEFORE_S, _AFTER_S = 0.035, 0.4, 1.2


def main(arguments: list[str]) -> int:
    """Record, and write or compare."""
    try:
        archive = fetch_debian_archive(
            "arm64", default_suites("arm64"), BASE_PACKAGES + COMPILER_PACKAGES, progress=_silent
        )
    except SourceError as error:
        print(f"record: no tree: {error.message}", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory(prefix="xbuild-record-", dir="/var/tmp") as home:
        os.chmod(home, 0o755)
        unpack_tree(archive, HostPath(f"{home}/pi"))
        os.mkdir(f"{home}/src")
        Path(home, "src", "hello.c").write_text(_HELLO)
        events = record(home)
    if arguments == ["--check"]:
        return check(events)
    _PLACE.mkdir(exist_ok=True)
    cast = write_cast(events, TITLE)
    (_PLACE / "xbuild.cast").write_text(cast)
    (_PLACE / "xbuild.svg").write_text(draw(read_cast(cast), TITLE))
    print(content_of(events), end="")
    return 0


def record(home: str) -> tuple[Event, ...]:
    """Type and run each command of the session; return what a terminal showed."""
    events: list[Event] = []
    skipped_s = -time.monotonic()  # typing is not waited for

    def show(text: str) -> None:
        events.append(Event(time.monotonic() + skipped_s, text.replace(home, SHOWN_HOME)))

    for command in SESSION:
        skipped_s += _BEFORE_S
        show("$ ")
        for character in command:
            skipped_s += _TYPING_S
            show(character)
        show("\r\n")
        if not command.startswith("#"):
            _run(command, home, show)
            skipped_s += _AFTER_S
    show("$ ")
    return tuple(events)


def _run(command: str, home: str, show: Callable[[str], None]) -> None:
    """Run a command of the shell on a terminal, and show what it prints as it comes."""
    controlling, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    path = f"{os.path.dirname(sys.executable)}:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"HOME": home, "PATH": path, "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    cache = os.environ.get("XDG_CACHE_HOME")
    environment |= {"XDG_CACHE_HOME": cache} if cache else {}
    with subprocess.Popen(
        ["bash", "--norc", "-c", command],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=f"{home}/src",
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(terminal)
        while text := _read(controlling):
            show(text)
    os.close(controlling)
    if process.returncode != 0:
        raise SystemExit(f"record: {command}: status {process.returncode}")


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 1 << 16).decode()
    except OSError:  # EIO: nobody has the other side any more
        return ""


def check(events: tuple[Event, ...]) -> int:
    """Compare with what is in docs; print the difference."""
    kept = (_PLACE / "xbuild.cast").read_text()
    if (_PLACE / "xbuild.svg").read_text() != draw(read_cast(kept), TITLE):
        print("record: xbuild.svg does not show xbuild.cast", file=sys.stderr)
        return 1
    before, now = (content_of(each).splitlines() for each in (read_cast(kept), events))
    for line in difflib.unified_diff(before, now, "docs/recording", "now", lineterm=""):
        print(line, file=sys.stderr)
    return int(before != now)


def _silent(_text: str, _fraction: float | None) -> None: ...


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
