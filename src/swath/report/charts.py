"""Curves as inline SVG: sharp at any size, in the page's colours, light or dark.

A chart knows numbers and pixels only. The values under the pointer are shown by ``page.js``, from
the numbers that a chart carries with it.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swath.units import count

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 26


@dataclass(frozen=True)
class Line:
    """One curve. ``raw`` are unsmoothed values, drawn faintly behind."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    raw: Sequence[float] | None = None


def chart(lines: Sequence[Line], *, x_name: str, log: bool = False, places: int = 3) -> str:
    """Return an SVG of ``lines`` and, below it, their names with the values under the pointer.

    log: logarithmic y axis; values of 0 and below are left out. Non-finite values are gaps.
    """
    shown = [value for line in lines for value in (line.raw or line.y) if _plottable(value, log)]
    shown += [value for line in lines for value in line.y if _plottable(value, log)]
    if not shown:
        return ""
    first = min(min(line.x) for line in lines)
    last = max(max(line.x) for line in lines)
    last = last if last > first else first + 1
    marks, low, high = _log_marks(shown) if log else round_marks(min(shown), max(shown))

    def across(x: float) -> float:
        return LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        if log:
            share = (math.log10(y) - math.log10(low)) / (math.log10(high) - math.log10(low))
        else:
            share = (y - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = []
    for mark in marks:
        y = down(mark)
        parts.append(
            f'<line class="gridline" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{_short(mark)}</text>'
        )
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    for mark in round_marks(first, last)[0]:
        if first <= mark <= last:
            parts.append(
                f'<text x="{across(mark):.1f}" y="{HEIGHT - 9}" text-anchor="middle">'
                f"{count(mark)}</text>"
            )
    for i, line in enumerate(lines):
        if line.raw is not None:
            parts.append(_path(line.x, line.raw, across, down, f"raw s{i}", log))
        parts.append(_path(line.x, line.y, across, down, f"s{i}", log))
        if len(line.x) <= 40:
            parts += [
                f'<circle class="s{i}" cx="{across(x):.1f}" cy="{down(y):.1f}" r="2.6"/>'
                for x, y in zip(line.x, line.y, strict=True)
                if _plottable(y, log)
            ]
    parts.append(f'<line class="cursor" y1="{TOP}" y2="{base}" x1="0" x2="0"/>')
    about = {
        "width": WIDTH,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "from": first,
        "to": last,
        "lines": [
            {"x": list(line.x), "said": [f"{value:.{places}g}" for value in line.y]}
            for line in lines
        ],
    }
    keys = "".join(
        f'<span><i class="k{i}"></i>{html.escape(line.name)} <b></b></span>'
        for i, line in enumerate(lines)
    )
    label = html.escape(f"{', '.join(line.name for line in lines)} by {x_name}")
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" '
        f"data-lines='{html.escape(json.dumps(about), quote=True)}'>{''.join(parts)}</svg>"
        f'<div class="keys">{keys}</div>'
    )


def smooth(values: Sequence[float], share: float = 0.04) -> list[float]:
    """Return the running mean of ``values`` that forgets over ``share`` of their number; what is
    not finite stays a gap."""
    keep = 1 - 1 / max(1.0, share * len(values))
    out: list[float] = []
    total = weight = 0.0
    for value in values:
        if math.isfinite(value):
            total, weight = keep * total + value, keep * weight + 1
        out.append(total / weight if math.isfinite(value) else math.nan)
    return out


def thin(values: Sequence[Any], most: int = 800) -> list[int]:
    """Return the places of at most ``most`` of ``values``, evenly, the last one included."""
    step = max(1, math.ceil(len(values) / most))
    return sorted({*range(0, len(values), step), len(values) - 1}) if values else []


def _path(x, y, across, down, name: str, log: bool) -> str:
    drawn, pen = [], "M"
    for a, b in zip(x, y, strict=True):
        if not _plottable(b, log):
            pen = "M"
            continue
        drawn.append(f"{pen}{across(a):.1f} {down(b):.1f}" + ("h0" if pen == "M" else ""))
        pen = "L"
    return f'<path class="{name}" d="{"".join(drawn)}"/>'


def _plottable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def round_marks(low: float, high: float, about: int = 5) -> tuple[list[float], float, float]:
    """Return round numbers from below ``low`` to above ``high``, and these two bounds."""
    span = high - low if high > low else abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(i * step, 12) for i in range(first, last + 1)], first * step, last * step


def _log_marks(values: Sequence[float]) -> tuple[list[float], float, float]:
    low, high = min(values), max(values)
    marks = [
        m * 10.0**p
        for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for m in (1, 2, 5)
    ]
    inside = [m for m in marks if low <= m <= high]
    while len(inside) > 6:
        inside = inside[::2]
    return inside, low * 0.95, high * 1.05


def _short(value: float) -> str:
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.0e}"
