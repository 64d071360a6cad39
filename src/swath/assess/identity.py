"""What the figures of a cell depend on, beside its name: a record of anything else is refused."""

from __future__ import annotations

from typing import Any

from swath.assess.cells import COMPUTED, Cell
from swath.assess.plan import Plan
from swath.assess.ways import BASELINE
from swath.config import plain
from swath.train.job import RESULT

FROZEN = ("data", "model", "task", "embed", "probe", "init", "train")
"""Fields of a run that the figures of frozen features depend on, as RESULT of a trained one."""
FEW_FROZEN = 2
"""Counted up when a change of Swath changes the figures of features with few labels."""


def of(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Return what the figures of ``cell`` depend on, to be compared by ``cells.check``."""
    return {"store": plan.stores[cell.task], **asked(plan, cell)}


def asked(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Return what :func:`of` does, but for the store, which may not be built yet."""
    run, way = plan.run(cell, plan.tries(cell)[0]), plan.way(cell)
    if cell.way == BASELINE:
        (one,) = (b for b in plan.settings.baselines if b.title == cell.model)
        told: dict[str, Any] = {"baseline": plain(one, defaults=False)}
        fields: tuple[str, ...] = ("data",)
    else:
        fields = FROZEN if way.frozen else RESULT
        init = plan.weights[cell.model, cell.seed]
        told = {"weights": init and init.sha256, "tries": list(way.tries)}
    told |= {name: plain(getattr(run, name), defaults=False) for name in fields}
    told["data"].pop("store", None)
    if way.frozen:  # nothing is trained: of how it is done only the arithmetic counts
        told["train"] = {k: v for k, v in told["train"].items() if k == "precision"}
        if cell.share < 1:
            told[COMPUTED] = FEW_FROZEN
    if isinstance(told.get("init"), dict):
        told["init"] = {k: v for k, v in told["init"].items() if k in ("bands", "missing")}
    return {"kind": way.kind or BASELINE, **told}
