"""How right a map is, class by class: confusion, accuracies and areas, for page and terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from swath.data.chip import Label
from swath.data.palette import class_colours
from swath.report.words import area_unit, percent, whole
from swath.tasks import FIGURES

Scores = Mapping[str, Any]
"""Figures of a map, as in scores.json."""

CAVEAT = (
    "hold as far as the reference is a random sample, which hand-drawn polygons are not: read the"
    " errors as lower bounds."
)


def table(scores: Scores) -> str:
    """Return the accuracies and areas of each class, and the confusion, as text for a terminal."""
    titles, rows = _by_class(scores)
    overall = percent(scores["area"]["oa"], scores["area"]["oa_se"])
    names = scores["classes"]
    counts = np.array(scores["confusion"], np.float64)
    numbers = [str(i) for i in range(1, len(names) + 1)]
    confusion = [
        [f"{number} {name}", *_shares(row), whole(row.sum())]
        for number, name, row in zip(numbers, names, counts, strict=True)
    ]
    parts = [
        f"by class; overall accuracy, area-adjusted: {overall}",
        *_aligned([titles, *rows]),
        "",
        "confusion: rows are the truth, columns the map; % of the row",
        *_aligned([["", *numbers, "pixels"], *confusion]),
        "",
        *textwrap.wrap(f"± is a standard error (Olofsson et al. 2014). These {CAVEAT}", 100),
    ]
    return "\n".join(parts)


def accuracy(scores: Scores, label: Label) -> dict[str, Any] | None:
    """Return the page's confusion matrix, table and areas of a scored map; None if it has none."""
    if not scores.get("confusion"):
        return None
    counts = np.array(scores["confusion"], np.float64)
    names = list(scores.get("classes") or label.classes)
    colours = class_colours(label)
    titles, rows = _by_class({**scores, "classes": names})
    return {
        "about": f"{whole(counts.sum())} reference pixels of the {scores.get('part', 'test')} part"
        f" (split by {scores.get('split')}) on the map. Areas and ± standard errors are"
        f" area-adjusted (Olofsson et al. 2014); they {CAVEAT}",
        "columns": "map",
        "things": "pixels",
        "confusion": {"names": names, "rows": _confusion(counts, names)},
        "table": {
            "title": "By class; area-adjusted overall accuracy "
            + percent(scores["area"]["oa"], scores["area"]["oa_se"]),
            "titles": titles,
            "rows": [
                [
                    {"text": row[0], "colour": colours[i] if i < len(colours) else ""},
                    *({"text": text} for text in row[1:]),
                ]
                for i, row in enumerate(rows)
            ],
        },
        "areas": _areas(scores["area"], names, colours),
    }


def _by_class(scores: Scores) -> tuple[list[str], list[list[str]]]:
    """Return titles and, for each class, what stands under them."""
    area = scores["area"]
    unit = area_unit(area["unit"], max(area["mapped"]))
    titles = ["Class", "User's acc.", "Producer's acc.", "IoU", "Producer's, adjusted"]
    titles += [f"Mapped {unit.name}", f"Adjusted {unit.name}"]
    rows = [
        [
            name,
            percent(area["users"][i], area["users_se"][i]),
            percent(scores["producers"][i]),
            FIGURES["miou"].said(scores.get(f"iou/{name}")),
            percent(area["producers"][i], area["producers_se"][i]),
            unit.said(area["mapped"][i]),
            unit.said(area["estimated"][i], area["estimated_se"][i]),
        ]
        for i, name in enumerate(scores["classes"])
    ]
    return titles, rows


def _confusion(counts: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    """Return the page's rows of a confusion matrix, cells shaded by their share of the row."""
    rows = []
    for i, name in enumerate(names):
        total, cells = counts[i].sum(), []
        for j, other in enumerate(names):
            share = counts[i, j] / total if total else 0.0
            title = f"{whole(counts[i, j])} px of {name} " + (
                "found" if i == j else f"mapped as {other}"
            )
            cells.append(
                {
                    "text": f"{share * 100:.0f}" if share >= 0.005 else "",
                    "shade": f"{0.06 + 0.74 * share:.2f}" if share >= 0.005 else "0.04",
                    "right": i == j,
                    "title": title,
                }
            )
        rows.append({"name": name, "cells": cells, "count": whole(total)})
    return rows


def _areas(area: Mapping[str, Any], names: list[str], colours: Any) -> dict[str, Any]:
    """Return bars of each class's area, in % of the longest."""
    most = max([*area["mapped"], *(a or 0.0 for a in area["estimated"])]) or 1.0
    unit = area_unit(area["unit"], max(area["mapped"]))
    bars = [
        {
            "name": name,
            "colour": colours[i] if i < len(colours) else "currentColor",
            "mapped": round(100 * area["mapped"][i] / most, 1),
            "estimated": round(100 * (area["estimated"][i] or 0.0) / most, 1),
            "title": f"{name}: mapped {unit.said(area['mapped'][i])}, adjusted "
            + unit.said(area["estimated"][i], area["estimated_se"][i]),
        }
        for i, name in enumerate(names)
    ]
    return {"unit": unit.name, "bars": bars}


def _shares(row: np.ndarray) -> list[str]:
    """Return the cells of a row of a confusion matrix in %; a dot where there is nothing."""
    total = row.sum()
    return [f"{100 * n / total:.0f}" if n else "." for n in row]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
