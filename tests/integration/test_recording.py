"""The recording that the README shows: what the program does, now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

from script.recording import Event, content_of, draw, read_cast, write_cast
from tests.capability import require
from tests.installation import CHECKOUT
from xbuild.binary.arch import host_arch

_KEPT = Path(CHECKOUT) / "docs" / "recording"
_NO_TREE = 3
SESSION = (Event(0.0, "$ "), Event(0.1234, "l"), Event(0.2, "s\r\n"), Event(1.0, "a <b>\r\n$ "))


def test_recording_is_what_the_program_does() -> None:
    require("x86_64", host_arch().name == "x86_64", "the recording is of an x86-64 machine")
    done = subprocess.run(
        [sys.executable, "-m", "script.record", "--check"],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env={**os.environ, "NO_COLOR": "1"},
    )
    require("mirror", done.returncode != _NO_TREE, done.stderr)
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stderr}\nscript/record makes it anew"


def test_readme_shows_it() -> None:
    readme = (Path(CHECKOUT) / "README.md").read_text(encoding="utf-8")
    assert "docs/recording/xbuild.svg" in readme
    shown = xml.etree.ElementTree.parse(_KEPT / "xbuild.svg")
    lines = [element.text or "" for element in shown.iter("{http://www.w3.org/2000/svg}text")]
    assert lines == content_of(read_cast((_KEPT / "xbuild.cast").read_text())).split("\n")


def test_cast_says_what_was_shown_and_when() -> None:
    cast = write_cast(SESSION, "a title")
    header, *rows = map(json.loads, cast.splitlines())
    assert (header["version"], header["title"]) == (2, "a title")
    assert rows[1] == [0.123, "o", "l"]
    assert content_of(read_cast(cast)) == "$ ls\na <b>\n$ "


def test_drawing_shows_each_line_at_its_time() -> None:
    drawing = xml.etree.ElementTree.fromstring(draw(SESSION, "a title"))
    groups = drawing.findall("{http://www.w3.org/2000/svg}g")
    shown = [(group.get("style"), group[0].text) for group in groups]
    assert shown == [
        ("animation-delay:0.20s", "$ ls"),
        ("animation-delay:1.00s", "a <b>"),
        ("animation-delay:1.00s", "$ "),
    ]
