"""The model beside its baselines: rows of figures, for the terminal and for the page.

A row is a method's name and its figures on the same held-out part.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from swath.config import ConfigError
from swath.predict.settings import SCORES
from swath.report.words import whole
from swath.tasks import FIGURES, figure

BASELINES = "baselines.json"
"""File in the run folder with a row of figures for each baseline."""

Row = Mapping[str, Any]

_BESIDE = ("samples", "scored", "fitted", "train", "share_touching", "share_same_object")
"""Numbers of a row that are no figures."""
_PRINTED = ("oa", "balanced", "f1_micro", "map", "rmse", "r2")
_HEADLINES = {
    "oa": ("oa", "balanced", "miou", "kappa"),
    "map": ("map", "f1_micro", "f1_macro", "exact"),
    "rmse": ("rmse", "mae", "r2", "bias"),
}


def read_scores(folder: pathlib.Path) -> dict[str, Any]:
    """Return the content of scores.json, "model" and "map"; nothing if there is none."""
    return _read(folder / SCORES, dict, "evaluate") or {}


def compared(folder: pathlib.Path, model: str | None) -> list[Row]:
    """Return a row for the model and one for each baseline that was scored in a run folder.

    model: what the model is called; None: the run has none.

    The model is scored by its map if there is one, so that, as with baselines on pixels, every
    held-out pixel counts once. ConfigError if a file of figures is damaged.
    """
    scores = read_scores(folder)
    rows = _read(folder / BASELINES, list, "baseline") or []
    if not scores or model is None:
        return rows
    return [{"name": model, **scores["map" if "map" in scores else "model"]}, *rows]


def table(rows: Sequence[Row]) -> str:
    """Return ``rows`` as text for a terminal, and what they have to be read with."""
    numbers = [{k: v for k, v in row.items() if isinstance(v, int | float)} for row in rows]
    figures = _without_repeats([n for n in _PRINTED if any(n in row for row in numbers)])
    figures += _own_figures(rows)
    width = max([len(row["name"]) for row in rows] + [8])
    wide = max([len(name) + 2 for name in figures] + [10])
    lines = [f"{'':<{width}}" + "".join(f"{name:>{wide}}" for name in figures)]
    for row, values in zip(rows, numbers, strict=True):
        cells = (
            f"{values[name]:>{wide}.3f}" if name in values else f"{'-':>{wide}}" for name in figures
        )
        lines.append(f"{row['name']:<{width}}" + "".join(cells))
    if rows and "counting" in rows[0]:
        lines.append(f"{rows[0]['name']}: {rows[0]['counting']}")
    touching = rows[0].get("share_touching") if rows else None
    if touching is not None:
        lines.append(f"{touching:.0%} of the test windows touch training pixels")
    if rows and (same := rows[0].get("share_same_object")):
        lines.append(f"{same:.0%} show a polygon or region of which another piece was trained on")
    return "\n".join(lines)


def headline(row: Row, rows: Sequence[Row], unit: str) -> list[dict[str, Any]]:
    """Return the tiles at the top of the page: figures of the model, each against the best
    baseline, and how near the test is to what was trained on."""
    tiles: list[dict[str, Any]] = []
    known = next((h for key, h in _HEADLINES.items() if row.get(key) is not None), ())
    for name in (*known, *_own_figures([row])):
        if row.get(name) is None:
            continue
        told = figure(name)
        others = [other[name] for other in rows if other.get(name) is not None]
        best = told.best_of(others) if others else None
        note = "" if best is None else f"best baseline {told.said(best, unit)}"
        tiles.append({"name": told.title, "value": told.said(row[name], unit), "note": note})
    touching = row.get("share_touching")
    if touching is not None:
        tiles.append(
            {
                "name": "Test windows touching training",
                "value": f"{touching:.0%}".replace("%", " %"),
                "note": (f"split by {row['split']}. " if row.get("split") else "")
                + _nearness(touching, row.get("share_same_object")),
                "wide": True,
            }
        )
    return tiles


def comparison(rows: Sequence[Row], ours: int, unit: str) -> dict[str, Any] | None:
    """Return the page's table of the model (row ``ours``) and its baselines; None if it stands
    alone. The best figure of each column is marked."""
    if len(rows) < 2:
        return None
    several = [n for n in FIGURES if sum(row.get(n) is not None for row in rows) > 1]
    shown = [name for name in _without_repeats(several) if name != "loss"][:5] + _own_figures(rows)
    best = {n: figure(n).best_of(r[n] for r in rows if r.get(n) is not None) for n in shown}
    made = []
    for i, row in enumerate(rows):
        cells = []
        for name in shown:
            value: Any = row.get(name)
            share = value is not None and figure(name).best == "largest" and 0 <= value <= 1
            cells.append(
                {
                    "text": figure(name).said(value, unit),
                    "bar": round(100 * value) if share and name in shown[:2] else None,
                    "best": value is not None and value == best[name],
                }
            )
        counts = row.get("fitted") or row.get("train"), row.get("scored") or row.get("samples")
        cells += [{"text": whole(count), "bar": None, "best": False} for count in counts]
        made.append({"name": row["name"], "cells": cells, "ours": i == ours})
    model = rows[ours]
    things = "map" if model.get("file") else "answers, sample by sample"
    if counting := model.get("counting"):
        things += f" ({counting})"
    return {
        "titles": [*(figure(name).title for name in shown), "fitted on", "scored on"],
        "rows": made,
        "about": f"All on the same {model.get('part', 'test')} part, which none of them has seen in"
        f" training; the model by its {things}. The best of each column is coloured.",
    }


def _nearness(touching: float, same: float | None) -> str:
    """Return what the shares of test windows that touch training pixels, and that show an object
    which was trained on as well, mean for the reader."""
    said = "No window that is scored holds a pixel that was trained on."
    if touching:
        said = (
            "These windows also hold ground that was trained on: their labels are new to the model,"
            " their surroundings are not, so expect less of it on a scene that it has never seen."
        )
    if same:
        said += (
            f" {100 * same:.0f} % of the windows show a polygon or region of which another piece"
            " was trained on; a split by polygon (or region) keeps each on one side."
        )
    return said


def _own_figures(rows: Sequence[Row]) -> list[str]:
    """Return the names of figures that only a task of one's own knows, but for those of a class."""
    names = {
        name: None
        for row in rows
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return [n for n in names if n not in FIGURES and n not in _BESIDE and "/" not in n]


def _without_repeats(names: Sequence[str]) -> list[str]:
    """Return ``names`` without F1 over all, which is the overall accuracy where there is one."""
    return [name for name in names if name != "f1_micro" or "oa" not in names]


def _read(path: pathlib.Path, kind: type, verb: str) -> Any:
    """Return the JSON of ``path``, None if there is none; ConfigError if it is not a ``kind``."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, kind):
        raise ConfigError(f"{path}: is damaged; swath {verb} writes it anew")
    return found
