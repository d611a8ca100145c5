"""Small charts as SVG, drawn on the server: no script, no style attributes, colours from the style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from mailing.v1.mailing_service_pb2 import GetMailingReportResponse
from server.console.viewer import Viewer, span

WIDTH, HEIGHT = 640, 150
_LEFT, _BOTTOM, _TOP = 44, 18, 8


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a bar chart: what it is called below, and its parts as (class, value), from below."""

    label: str
    parts: Sequence[tuple[str, float]]

    @property
    def total(self) -> float:
        """The height of the column."""
        return sum(value for _, value in self.parts)


def line(
    points: Sequence[tuple[float, float]], title: str, number: Callable[[float], str], seconds: float = 60.0
) -> Markup:
    """Return an area chart of values over time; the newest point is at the right edge, `seconds` wide."""
    newest = points[-1][0] if points else 0.0
    top = _round_up(max((value for _, value in points), default=0.0))
    inner = WIDTH - _LEFT
    drawn = [
        (WIDTH - (newest - at) / seconds * inner, _y(value, top)) for at, value in points if newest - at <= seconds
    ]
    body = _grid(top, number)
    if len(drawn) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        base = HEIGHT - _BOTTOM
        body += Markup('<polygon class="area" points="{},{} {} {},{}"/><polyline class="line" points="{}"/>').format(
            f"{drawn[0][0]:.1f}", base, path, f"{drawn[-1][0]:.1f}", base, path
        )
    return _svg(body, title)


def columns(bars: Sequence[Column], title: str, number: Callable[[float], str], labels: int = 6) -> Markup:
    """Return a chart of stacked columns; about `labels` of them are named below."""
    top = _round_up(max((bar.total for bar in bars), default=0.0))
    step = (WIDTH - _LEFT) / max(len(bars), 1)
    every = max(1, -(-len(bars) // labels))
    body = _grid(top, number)
    for place, bar in enumerate(bars):
        x, base = _LEFT + place * step, float(HEIGHT - _BOTTOM)
        wide = max(1.0, min(step - 2, step * 0.8, 46))
        left = x + (step - wide) / 2
        for kind, value in bar.parts:
            high = value / top * (HEIGHT - _BOTTOM - _TOP)
            base -= high
            if high:
                body += Markup(
                    '<rect class="s-{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
                ).format(
                    kind, f"{left:.1f}", f"{base:.1f}", f"{wide:.1f}", f"{high:.1f}", f"{bar.label}: {number(value)}"
                )
        if place % every == 0:
            body += Markup('<text class="axis middle" x="{}" y="{}">{}</text>').format(
                f"{x + step / 2:.1f}", HEIGHT - 4, bar.label
            )
    return _svg(body, title)


def bar(parts: Sequence[tuple[str, float]], whole: float, title: str) -> Markup:
    """Return one line of parts of a whole, such as the statuses of a mailing."""
    body, left = Markup(), 0.0
    for kind, value in parts:
        wide = 100 * value / whole if whole else 0.0
        body += Markup('<rect class="s-{}" x="{}" y="0" width="{}" height="1"/>').format(
            kind, f"{left:.2f}", f"{wide:.2f}"
        )
        left += wide
    return Markup(
        '<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(title, body)


def over_time(minutes: Sequence[GetMailingReportResponse.MinuteCount], viewer: Viewer) -> Sequence[Column]:
    """Return the columns of a report's series: delivered with failed above."""
    return [
        Column(viewer.moment(one.time, False), [("delivered", one.delivered), ("failed", one.failed)])
        for one in minutes
    ]


def latencies(counts: Sequence[GetMailingReportResponse.LatencyCount]) -> Sequence[Column]:
    """Return the columns of a report's histogram, each named by its upper bound."""
    return [
        Column(f"≤ {span(one.highest)}" if one.highest.ToNanoseconds() else "< 1ms", [("delivered", one.count)])
        for one in counts
    ]


def _grid(top: float, number: Callable[[float], str]) -> Markup:
    lines = Markup()
    for part in (0.0, 0.5, 1.0):
        y = _y(top * part, top)
        lines += Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="axis end" x="{}" y="{}">{}</text>'
        ).format(_LEFT, WIDTH, f"{y:.1f}", f"{y:.1f}", _LEFT - 6, f"{y + 4:.1f}", number(top * part))
    return lines


def _svg(body: Markup, title: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, escape(title), body
    )


def _y(value: float, top: float) -> float:
    return HEIGHT - _BOTTOM - value / top * (HEIGHT - _BOTTOM - _TOP)


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 4, 5, 8 or 10 times a power of ten: half of it is a good number, too."""
    if value <= 0:
        return 2.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value)
