"""The tables of the page: headline figures, the comparison with baselines, accuracy by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swath.data.chip import Label
from swath.data.palette import class_colours

NAMES = {
    "oa": "Overall accuracy",
    "balanced": "Balanced accuracy",
    "kappa": "Kappa",
    "miou": "Mean IoU",
    "f1_macro": "F1, mean of classes",
    "f1_micro": "F1, all flags",
    "map": "Mean average precision",
    "exact": "All flags right",
    "rmse": "RMSE",
    "mae": "Mean absolute error",
    "bias": "Bias",
    "r2": "R²",
    "loss": "Loss",
}
"""Names of figures in words, in the order of the page."""

_IN_UNITS = ("rmse", "mae", "bias")
_SMALLER = (*_IN_UNITS, "loss")
_HEADLINES = {
    "oa": ("oa", "balanced", "miou", "kappa"),
    "map": ("map", "f1_micro", "f1_macro", "exact"),
    "rmse": ("rmse", "mae", "r2", "bias"),
}


def said(name: str, value: float | None, unit: str = "") -> str:
    """Return a figure in words: "63.1 %", "0.52" or "4.31 m"."""
    if value is None:
        return "–"
    if name in ("oa", "balanced", "exact"):
        return f"{value:.1%}".replace("%", " %")
    if name in _IN_UNITS:
        return f"{value:.3g}" + (f" {unit}" if unit else "")
    return f"{value:.3f}"


def headline(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], unit: str) -> list[dict]:
    """Return the tiles at the top: figures of the model, each against the best baseline."""
    tiles = []
    for name in next((h for key, h in _HEADLINES.items() if row.get(key) is not None), ()):
        if row.get(name) is None:
            continue
        others = [other[name] for other in rows if other.get(name) is not None]
        note = ""
        if others:
            best = min(others) if name in _SMALLER else max(others)
            note = f"best baseline {said(name, best, unit)}"
        tiles.append({"name": NAMES[name], "value": said(name, row[name], unit), "note": note})
    touching = row.get("share_touching")
    if touching is not None:
        tiles.append(
            {
                "name": "Test windows touching training",
                "value": f"{touching:.0%}".replace("%", " %"),
                "note": f"split by {row['split']}" if row.get("split") else "",
            }
        )
    return tiles


def comparison(rows: Sequence[Mapping[str, Any]], ours: int, unit: str) -> dict[str, Any] | None:
    """Return the table of the model (row ``ours``) and its baselines; None if it stands alone.

    The best figure of each column is marked.
    """
    if len(rows) < 2:
        return None
    flags = any(row.get("map") is not None for row in rows)
    left_out = {"loss"} if flags else {"loss", "f1_micro"}  # of one class each, it is the oa
    shown = [
        name
        for name in NAMES
        if name not in left_out and sum(row.get(name) is not None for row in rows) > 1
    ][:5]
    best = {}
    for name in shown:
        values = [row[name] for row in rows if row.get(name) is not None]
        best[name] = min(values) if name in _SMALLER else max(values)
    table = []
    for i, row in enumerate(rows):
        cells = []
        for name in shown:
            value: Any = row.get(name)
            share = value is not None and name not in _SMALLER and 0 <= value <= 1
            cells.append(
                {
                    "text": said(name, value, unit),
                    "bar": round(100 * value) if share and name in shown[:2] else None,
                    "best": value is not None and value == best[name],
                }
            )
        fitted = row.get("fitted") or row.get("train")
        cells.append({"text": _count(fitted), "bar": None, "best": False})
        cells.append({"text": _count(_scored(row)), "bar": None, "best": False})
        table.append({"name": row["name"], "cells": cells, "ours": i == ours})
    model = rows[ours]
    things = "map" if model.get("file") else "answers, sample by sample"
    return {
        "titles": [*(NAMES[name] for name in shown), "fitted on", "scored on"],
        "rows": table,
        "about": f"All on the same {model.get('part', 'test')} part, which none of them has seen in"
        f" training; the model by its {things}. The best of each column is coloured.",
    }


def accuracy(scores: Mapping[str, Any], label: Label) -> dict[str, Any] | None:
    """Return confusion matrix and per-class table of a scored map; None if it has none."""
    if not scores.get("confusion"):
        return None
    counts = np.array(scores["confusion"], np.float64)
    names = list(scores.get("classes") or label.classes)
    total = counts.sum(1)
    rows = []
    for i, name in enumerate(names):
        cells = []
        for j, other in enumerate(names):
            share = counts[i, j] / total[i] if total[i] else 0.0
            title = f"{_count(counts[i, j])} px of {name} " + (
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
        rows.append({"name": name, "cells": cells, "count": _count(total[i])})
    return {
        "about": f"{_count(counts.sum())} reference pixels of the {scores.get('part', 'test')} part"
        " (split by " + str(scores.get("split")) + ") on the map. Areas and ± standard errors are"
        " area-adjusted (Olofsson et al. 2014); they hold as far as the reference is a random"
        " sample, which hand-drawn polygons are not: read the errors as lower bounds.",
        "columns": "map",
        "things": "pixels",
        "confusion": {"names": names, "rows": rows},
        "table": _by_class(scores, label, names),
        "areas": _areas(scores["area"], label, names),
    }


def _areas(area: Mapping[str, Any], label: Label, names: list[str]) -> dict[str, Any]:
    """Return bars of each class's area, in % of the longest."""
    most = max([*area["mapped"], *(a or 0.0 for a in area["estimated"])]) or 1.0
    colours = class_colours(label)
    bars = [
        {
            "name": name,
            "colour": colours[i] if i < len(colours) else "currentColor",
            "mapped": round(100 * area["mapped"][i] / most, 1),
            "estimated": round(100 * (area["estimated"][i] or 0.0) / most, 1),
            "title": f"{name}: mapped {_count(area['mapped'][i])}, estimated "
            + _plus_minus(area["estimated"][i], area["estimated_se"][i]),
        }
        for i, name in enumerate(names)
    ]
    return {"unit": area["unit"], "bars": bars}


def _by_class(scores: Mapping[str, Any], label: Label, names: list[str]) -> dict[str, Any]:
    area = scores["area"]
    unit = area["unit"]
    colours = class_colours(label)
    table = []
    for i, name in enumerate(names):
        table.append(
            [
                {"text": name, "colour": colours[i] if i < len(colours) else ""},
                {"text": _percent(scores["users"][i])},
                {"text": _percent(scores["producers"][i])},
                {"text": said("miou", scores.get(f"iou/{name}"))},
                {"text": _percent(area["producers"][i], area["producers_se"][i])},
                {"text": _count(area["mapped"][i])},
                {"text": _plus_minus(area["estimated"][i], area["estimated_se"][i])},
            ]
        )
    overall = _percent(area["oa"], area["oa_se"])
    return {
        "title": f"By class; area-adjusted overall accuracy {overall}",
        "titles": [
            "Class",
            "User's acc.",
            "Producer's acc.",
            "IoU",
            "Producer's, adjusted",
            f"Mapped {unit}",
            f"Estimated {unit}",
        ],
        "rows": table,
    }


def _scored(row: Mapping[str, Any]) -> float | None:
    return row.get("scored") or row.get("samples")


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}".replace(",", " ")


def _percent(value: float | None, error: float | None = None) -> str:
    if value is None:
        return "–"
    tail = f" ± {error * 100:.1f}" if error is not None else ""
    return f"{value * 100:.1f}{tail} %"


def _plus_minus(value: float | None, error: float | None) -> str:
    if value is None:
        return "–"
    return _count(value) + (f" ± {_count(error)}" if error is not None else "")
