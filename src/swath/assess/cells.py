"""The cells of a comparison, and their records: finished or absent, never torn.

A cell is one task, model, way, share of labels and seed. Its record says what was measured, and of
which settings and weights; one of other settings is refused, for figures of two experiments do not
belong into one table.
"""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass
from typing import Any

from swath.assess.settings import Assess
from swath.assess.ways import BASELINE
from swath.config import ConfigError
from swath.files import read_json, write_json
from swath.predict.settings import stem

CELLS = "cells"
FEATURES = "features"
"""Folder of networks as they began, and of their features."""
COMPUTED = "computed"
"""In what a record is of: which version of Swath's arithmetic, where that has changed."""


@dataclass(frozen=True, order=True)
class Cell:
    """One figure of the comparison."""

    task: str
    way: str
    model: str
    share: float
    seed: int

    def __str__(self) -> str:
        share = f"{100 * self.share:.3g} % of labels"
        return f"{self.task}, {self.way}, {self.model}, {share}, seed {self.seed}"

    def file(self, folder: pathlib.Path) -> pathlib.Path:
        """Return where the record is, below the folder of the comparison."""
        name = f"{self.share:g}-{self.seed}.json"
        return folder / CELLS / self.task / self.way / stem(self.model) / name


def cells(settings: Assess) -> list[Cell]:
    """Return all cells, task by task; of each the ways in turn, cheap ones before dear ones."""
    found = []
    for task, downstream in settings.tasks.items():
        shares = sorted(settings.shares)
        every = [
            (BASELINE, baseline.title, share) for baseline in settings.baselines for share in shares
        ]
        for name in downstream.ways or settings.ways:
            models = settings.way(name).models or settings.models
            every += [(name, model, share) for share in shares for model in models]
        found += [Cell(task, *one, seed) for one in every for seed in settings.seeds]
    return found


def read(cell: Cell, folder: pathlib.Path) -> dict[str, Any] | None:
    """Return the record of ``cell``; None if it was not measured yet."""
    path = cell.file(folder)
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or not {"figures", "of", "seconds"} <= found.keys():
        raise ConfigError(f"{path}: is no record of a cell; remove it, and it is measured again")
    return found


def check(cell: Cell, folder: pathlib.Path, record: dict[str, Any], of: dict[str, Any]) -> None:
    """Raise ConfigError unless ``record`` was measured with the settings and weights ``of``."""
    was, now = (_flat(json.loads(json.dumps(one, default=str))) for one in (record["of"], of))
    for name in dict.fromkeys([*now, *was]):
        if was.get(name) == now.get(name):
            continue
        if name == COMPUTED:
            raise ConfigError(
                f"{cell.file(folder)}: was measured by an older Swath, which scored few labels on"
                " other patches for each share; choose another name=..., or remove"
                f" {folder / CELLS / cell.task / cell.way}, and that is measured again"
            )
        raise ConfigError(
            f"{cell.file(folder)}: was measured with {name}={was.get(name)!r}, it is"
            f" {now.get(name)!r} now; set that back, choose another name=..., or remove"
            f" {folder / CELLS / cell.task} and {folder / FEATURES / cell.task}, and this task"
            " is measured again"
        )


def write(cell: Cell, folder: pathlib.Path, record: dict[str, Any]) -> None:
    """Write the record of a measured cell."""
    path = cell.file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    return {
        k: v
        for name, one in tree.items()
        for k, v in _flat(one, f"{path}.{name}".lstrip(".")).items()
    }
