"""A bar chart of build times as ratios, in SVG."""

from __future__ import annotations

from html import escape

_COLOURS = {
    "emulated": "#9aa0a6",
    "exact": "#1a73e8",
    "fast": "#12b5cb",
    "cross": "#34a853",
}
_OTHER = "#f29900"
_BAR, _GAP, _LEFT, _WIDTH = 16, 22, 150, 560
_LEGEND = "times what the cross-compile takes (dashed), and seconds; a bar with a gap is cut short"


def plot(times: dict[str, dict[str, float]], title: str) -> str:
    """Return an SVG: for each project its variants' times, as times of the cross-compile's.

    ``times`` are seconds by project and variant; a bar longer than the scale says so by its number.
    """
    ratios = {
        project: {name: value / row["cross"] for name, value in row.items()}
        for project, row in times.items()
        if row.get("cross")
    }
    values = [v for row in ratios.values() for name, v in row.items() if name != "emulated"]
    scale = _WIDTH / max(4.0, *(v * 1.15 for v in values))
    parts: list[str] = []
    y = 62
    for project, row in ratios.items():
        parts.append(_text(10, y + 12, project, "bold"))
        for name, ratio in row.items():
            length = min(ratio * scale, _WIDTH)
            colour = _COLOURS.get(name, _OTHER)
            parts.append(_text(_LEFT - 8, y + 12, name, "normal", "end"))
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR - 3}"'
                f' fill="{colour}"/>'
            )
            if ratio * scale > _WIDTH:
                parts.append(_gap(_LEFT + _WIDTH - 40, y))
            label = f"{ratio:.2f} ({times[project][name]:.1f} s)"
            parts.append(_text(_LEFT + length + 6, y + 11, label))
            y += _BAR
        y += _GAP
    one = _LEFT + scale
    line = f'<line x1="{one:.1f}" x2="{one:.1f}" y1="52" y2="{y - _GAP}" stroke="#5f6368"'
    parts.append(f'{line} stroke-dasharray="3 3"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 150}" height="{y}"'
        ' font-family="sans-serif" font-size="12">\n'
        '<rect width="100%" height="100%" fill="white"/>\n'
        + _text(10, 22, title, "bold")
        + _text(10, 40, _LEGEND)
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _gap(x: float, y: float) -> str:
    """Return the white mark of a bar that is longer than the scale."""
    points = f"{x},{y + _BAR} {x + 8},{y - 3} {x + 16},{y - 3} {x + 8},{y + _BAR}"
    return f'<polygon points="{points}" fill="white"/>'


def _text(x: float, y: float, words: str, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )
