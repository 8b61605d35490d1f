"""A recorded session as values, in asciinema's format, and drawn. Pure.

The file format is asciicast v2 (docs.asciinema.org/manual/asciicast/v2): a header, then one event
a line. The drawing is an SVG whose lines appear when they did, by CSS animation.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator

from xbuild.record import Record

COLUMNS, ROWS = 88, 30
_CHARACTER_WIDTH, _LINE_HEIGHT, _MARGIN = 8.43, 19, 16
_STYLE = """\
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #d7dae0; }
.typed { fill: #ffffff; font-weight: bold; }
.remark { fill: #8a919e; }
g { opacity: 0; animation: appear 1ms linear forwards; }
@keyframes appear { to { opacity: 1; } }
@media (prefers-reduced-motion: reduce) { g { opacity: 1; animation: none; } }"""


class Event(Record):
    """Text that the terminal showed, ``time_s`` after the beginning."""

    time_s: float
    text: str


def content_of(events: tuple[Event, ...]) -> str:
    """Return all that was shown, without when."""
    return "".join(event.text for event in events).replace("\r\n", "\n")


def write_cast(events: tuple[Event, ...], title: str) -> str:
    """Return a session as asciicast v2."""
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": title}
    rows = (json.dumps([round(event.time_s, 3), "o", event.text]) for event in events)
    return "\n".join((json.dumps(header), *rows, ""))


def read_cast(text: str) -> tuple[Event, ...]:
    """Return the events of an asciicast v2. Raises ValueError."""
    header, *rows = text.splitlines()
    if json.loads(header)["version"] != 2:
        raise ValueError("no asciicast of version 2")
    return tuple(
        Event(time_s, shown) for time_s, kind, shown in map(json.loads, rows) if kind == "o"
    )


def draw(events: tuple[Event, ...], title: str) -> str:
    """Return a session as SVG: each line appears when it began, typed ones by the letter's time."""
    lines = list(_lines(events))
    width = int(COLUMNS * _CHARACTER_WIDTH) + 2 * _MARGIN
    height = len(lines) * _LINE_HEIGHT + 2 * _MARGIN
    drawn = []
    for number, line in enumerate(lines):
        y = _MARGIN + (number + 1) * _LINE_HEIGHT - 5
        drawn.append(
            f'<g style="animation-delay:{line.time_s:.2f}s"><text x="{_MARGIN}" y="{y}"'
            f' xml:space="preserve"{_class_of(line.text)}>{html.escape(line.text)}</text></g>'
        )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" role="img">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#1d2027"/>',
            *drawn,
            "</svg>\n",
        )
    )


def _lines(events: tuple[Event, ...]) -> Iterator[Event]:
    """Yield each line with the time at which its last part was shown."""
    pending = ""
    for event in events:
        *whole, pending = (pending + event.text.replace("\r\n", "\n")).split("\n")
        for line in whole:
            yield Event(event.time_s, line)
    if pending:
        yield Event(events[-1].time_s, pending)


def _class_of(line: str) -> str:
    if line.startswith("$ #"):
        return ' class="remark"'
    return ' class="typed"' if line.startswith("$ ") else ""
