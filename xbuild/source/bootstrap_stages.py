"""How far mmdebstrap(1) is, by what it, apt and dpkg say where it is told to be --verbose. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xbuild.sandbox.tap import Stream
    from xbuild.source.apt import Progress

_STAGE = re.compile(r"^I: (?!.*received signal)(?P<name>.+)\.\.\.$", re.MULTILINE)
_EXPECTED = re.compile(r"\d+ upgraded, (\d+) newly installed")
_WITH_PACKAGES = ("extracting archives", "installing")


class BootstrapStages:
    """Tells of each stage as it comes, and of how many of its packages are done.

    ``last`` is the stage that it is in. ``has_packages`` says that all were downloaded: a mirror is
    no reason any more for what fails.
    """

    def __init__(self, what: str, progress: Progress) -> None:
        self._what = what
        self._progress = progress
        self._rest = b""
        self._expected = 0
        self._fetched = self._handled = 0
        self.last = ""
        self.has_packages = False

    def heard(self, stream: Stream, content: bytes) -> None:
        """Take note of some bytes."""
        del stream
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            self._note(line.decode("utf-8", "replace"))

    def _note(self, line: str) -> None:
        if stage := _STAGE.match(line):
            self.last = stage["name"]
            self.has_packages |= self.last.startswith(_WITH_PACKAGES)
            self._fetched = self._handled = 0
            self._progress(f"{self._what}: {self.last}", None)
        elif expected := _EXPECTED.match(line):
            self._expected = int(expected[1])
        elif line.startswith("Get:"):
            self._fetched += 1
            self._show()
        elif line.startswith(("Unpacking ", "Setting up ")):
            self._handled += 1
            self._show()

    def _show(self) -> None:
        """Each package is fetched, unless it was before, unpacked and set up."""
        steps = 0 if self.last.startswith("downloading") else 2
        steps += 1 if self._fetched else 0
        if self._expected and steps:
            done = (self._fetched + self._handled) / (steps * self._expected)
            self._progress(f"{self._what}: {self.last}", min(done, 1.0))


def of_last_stage(said: str) -> str:
    """Return what was said since the last stage began, all where none did."""
    *_, start = (0, *(stage.start() for stage in _STAGE.finditer(said)))
    return said[start:]
