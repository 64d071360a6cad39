"""One HTML page of a comparison, which opens from disk: scores against the share of labels.

A chart for each task and way: a line for each model, its spread over seeds as a bar; a baseline is
a dashed line in each. Style and script are those of the report.
"""

from __future__ import annotations

import html
import pathlib
from collections.abc import Sequence
from typing import Any

from swath.assess.plan import Plan
from swath.assess.table import Row, blocks, notes, verdicts
from swath.assess.ways import BASELINE, title
from swath.config import dump
from swath.files import write_file
from swath.report import page as report
from swath.report.charts import round_marks
from swath.tasks import figure
from swath.version import VERSION

PAGE = "report.html"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 250, 46, 14, 12, 40
COLOURS = ("accent", "second", "third", "faint", "ink")


def write(plan: Plan, found: Sequence[Row]) -> pathlib.Path:
    """Write report.html of the rows ``found`` beside the records; return its path."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tables = blocks(plan, found)
    content = {
        "name": plan.settings.name,
        "css": (report.HERE / "page.css").read_text(),
        "js": (report.HERE / "page.js").read_text(),
        "models": [
            (name, init.from_ if init else "the same network with random weights")
            for name, init in plan.settings.models.items()
        ],
        "tasks": [
            {
                "name": table.task,
                "figure": figure(table.figure).title,
                "charts": charts(plan, [r for r in found if r.task == table.task], table.figure),
                "titles": table.titles,
                "lines": table.lines,
            }
            for table in tables
        ],
        "verdicts": verdicts(plan, found),
        "notes": notes(plan, found),
        "done": sum(len(row.values) for row in found),
        "cells": len(plan.cells),
        "settings": dump(plan.settings),
        "version": VERSION,
    }
    page = environment.get_template("page.html.j2").render(**content)
    write_file(plan.folder / PAGE, page.encode())
    return plan.folder / PAGE


def charts(plan: Plan, found: Sequence[Row], name: str) -> list[dict[str, Any]]:
    """Return a chart for each way of one task, all with the same axis."""
    shares = sorted(plan.settings.shares)
    base = [row for row in found if row.way == BASELINE]
    ways = [way for way in dict.fromkeys(row.way for row in found) if way != BASELINE]
    models = [*plan.settings.models, *dict.fromkeys(row.model for row in base)]
    ends = [r.mean(name) + sign * r.deviation(name) for r in found for sign in (-1, 1)]
    if not ends:  # nothing of this task was measured yet
        return []
    made = []
    for way in ways or [BASELINE]:
        mine = [row for row in found if row.way == way] + (base if ways else [])
        drawn = _chart(mine, models, shares, name, (min(ends), max(ends)))
        made.append({"title": title(way), "svg": drawn, "keys": _keys(mine, models)})
    return made


def _keys(found: Sequence[Row], models: Sequence[str]) -> list[tuple[str, str]]:
    there = dict.fromkeys(row.model for row in found)
    return [(model, _colour(models.index(model))) for model in there]


def _colour(number: int) -> str:
    return f"var(--{COLOURS[number % len(COLOURS)]})"


def _chart(
    found: Sequence[Row],
    models: Sequence[str],
    shares: Sequence[float],
    name: str,
    ends: tuple[float, float],
) -> str:
    """Return an SVG: shares side by side, as many apart, whatever their ratio."""
    ticks, low, high = round_marks(*ends)
    step = (WIDTH - LEFT - RIGHT) / len(shares)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in ticks:
        y = f"{down(tick):.1f}"
        parts.append(
            f'<line class="gridline" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text x="{LEFT - 7}" y="{down(tick) + 3.5:.1f}" text-anchor="end">{tick:.3g}</text>'
        )
    for place, share in enumerate(shares):
        x = LEFT + (place + 0.5) * step
        said = f"{100 * share:.3g} %"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 22}" text-anchor="middle">{said}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{HEIGHT - 5}" text-anchor="middle">of the training labels'
        "</text>"
    )
    there = list(dict.fromkeys(row.model for row in found))
    for number, model in enumerate(there):
        mine = sorted((r for r in found if r.model == model), key=lambda row: row.share)
        aside = (number - (len(there) - 1) / 2) * min(9.0, step / (len(there) + 2))
        at = [LEFT + (shares.index(row.share) + 0.5) * step + aside for row in mine]
        colour = _colour(models.index(model))
        line = " ".join(f"{x:.1f},{down(r.mean(name)):.1f}" for x, r in zip(at, mine, strict=True))
        dashed = ' stroke-dasharray="4 4"' if mine[0].way == BASELINE else ""
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"{dashed}/>'
        )
        for x, row in zip(at, mine, strict=True):
            value, spread = row.mean(name), row.deviation(name)
            told = html.escape(f"{model}, {100 * row.share:.3g} %: {row.said(name)}")
            parts.append(
                f'<g><title>{told}</title><line x1="{x:.1f}" x2="{x:.1f}" '
                f'y1="{down(value - spread):.1f}" y2="{down(value + spread):.1f}" '
                f'stroke="{colour}" stroke-width="1.4"/>'
                f'<circle cx="{x:.1f}" cy="{down(value):.1f}" r="3.4" fill="{colour}"/></g>'
            )
    label = html.escape(f"{name} by share of labels: {', '.join(there)}")
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )
