"""Draws results as SVG, by hand: bars and lines with their values, and the machine below.

The drawings read well on light and dark pages and need nothing but a browser.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from bench.measure import machine

WIDTH, LEFT, RIGHT, TOP = 720, 130, 90, 48
INK, FAINT, COLOURS = "#57606a", "#8c959f55", ("#1f6feb", "#bf8700", "#8250df")
_FONT = "font-family='system-ui, sans-serif'"


@dataclass(frozen=True, slots=True)
class Bar:
    """One named value."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Line:
    """One row of values, named by its unit."""

    name: str
    values: Sequence[float]


def _text(x: float, y: float, text: str, size: int = 13, anchor: str = "start") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}' fill='{INK}'>{escape(text)}</text>"


def _document(title: str, height: int, parts: Sequence[str]) -> str:
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' {_FONT} role='img'>",
            f"<title>{escape(title)}</title>",
            _text(16, 26, title, 16),
            *parts,
            _text(16, height - 12, f"{machine()}, {today}", 11),
            "</svg>\n",
        ]
    )


def bars_svg(title: str, unit: str, bars: Sequence[Bar]) -> str:
    """Return a chart of horizontal bars from 0, each with its value."""
    most = max((bar.value for bar in bars), default=0) or 1
    parts = []
    for row, bar in enumerate(bars):
        y = TOP + row * 34
        length = (WIDTH - LEFT - RIGHT) * bar.value / most
        parts += [
            _text(LEFT - 10, y + 17, bar.name, anchor="end"),
            f"<rect x='{LEFT}' y='{y}' width='{max(length, 1):.1f}' height='24' rx='3' fill='{COLOURS[0]}'/>",
            _text(LEFT + length + 8, y + 17, f"{bar.value:,.0f}"),
        ]
    parts.append(_text(LEFT, TOP + len(bars) * 34 + 12, unit, 11))
    return _document(title, TOP + len(bars) * 34 + 48, parts)


def lines_svg(title: str, x_name: str, x_values: Sequence[str], lines: Sequence[Line]) -> str:
    """Return a chart of lines over evenly spaced x values, from 0, each point with its value."""
    height, bottom = 340, 268
    most = max((value for line in lines for value in line.values), default=0) or 1
    step = (WIDTH - 2 * RIGHT) / max(len(x_values) - 1, 1)
    xs = [RIGHT + column * step for column in range(len(x_values))]
    parts = [f"<line x1='{RIGHT}' y1='{bottom}' x2='{WIDTH - RIGHT}' y2='{bottom}' stroke='{FAINT}'/>"]
    parts += [_text(x, bottom + 20, name, 12, "middle") for x, name in zip(xs, x_values, strict=True)]
    parts.append(_text(WIDTH / 2, bottom + 40, x_name, 11, "middle"))
    for colour, line in zip(COLOURS, lines, strict=False):
        ys = [bottom - (bottom - TOP - 24) * value / most for value in line.values]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        parts.append(f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2.5'/>")
        for x, y, value in zip(xs, ys, line.values, strict=True):
            parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='{colour}'/>")
            parts.append(_text(x, y - 10, f"{value:,.0f} {line.name}", 12, "middle"))
    return _document(title, height, parts)


def write_bars(path: str | Path, title: str, unit: str, bars: Sequence[Bar]) -> None:
    """Write a chart of bars."""
    Path(path).write_text(bars_svg(title, unit, bars), encoding="utf-8")


def write_lines(path: str | Path, title: str, x_name: str, x_values: Sequence[str], lines: Sequence[Line]) -> None:
    """Write a chart of lines."""
    Path(path).write_text(lines_svg(title, x_name, x_values, lines), encoding="utf-8")
