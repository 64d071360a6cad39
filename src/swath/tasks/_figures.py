"""The names of figures: what each is in words, how it is said, and which value of it is best.

Tallies compute the figures (``_tally.py``); tables, the report and the choice of the best
checkpoint ask here. A figure of one class, such as iou/water, is no entry of its own; a figure of a
task of one's own is shown by its bare name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """What is to know of a figure beside its value."""

    title: str
    form: Literal["share", "number", "quantity"] = "number"
    """A share is said in %, a quantity in the unit of what is predicted."""
    best: Literal["largest", "smallest", "nearest 0", "unknown"] = "largest"
    below_0: str = ""
    """What a value below 0 says; "": nothing to remark."""

    def best_of(self, values: Iterable[float]) -> float | None:
        """Return the best of ``values``, of which there must be one; None if nobody knows."""
        if self.best == "unknown":
            return None
        if self.best == "nearest 0":
            return min(values, key=abs)
        return max(values) if self.best == "largest" else min(values)

    def doubt(self, value: float | None) -> str:
        """Return what a reader may miss about ``value``, in a few words; "" if there is nothing."""
        if not self.below_0 or value is None or not value < 0:
            return ""
        return f"{self.title} below 0: {self.below_0}"

    def said(self, value: float | None, unit: str = "") -> str:
        """Return the value in words: "63.1 %", "0.520" or "4.31 m"; a dash if it is unknown."""
        if value is None:
            return "–"
        if self.form == "share":
            return f"{100 * value:.1f} %"
        if self.form == "quantity":
            return f"{value:.3g} {unit}".rstrip()
        return f"{value:.3f}"


FIGURES = {
    "oa": Figure("Overall accuracy", "share"),
    "balanced": Figure("Balanced accuracy", "share"),
    "kappa": Figure("Kappa", below_0="worse than classes given by chance"),
    "miou": Figure("Mean IoU"),
    "f1_macro": Figure("F1, mean of classes"),
    "f1_micro": Figure("F1, all flags"),
    "map": Figure("Mean average precision"),
    "exact": Figure("All flags right", "share"),
    "rmse": Figure("RMSE", "quantity", "smallest"),
    "mae": Figure("Mean absolute error", "quantity", "smallest"),
    "bias": Figure("Bias", "quantity", "nearest 0"),
    "r2": Figure("R²", below_0="worse than answering the mean everywhere"),
    "top1": Figure("Other view found first", "share"),
    "alignment": Figure("Alignment", best="smallest"),
    "uniformity": Figure("Uniformity", best="smallest"),
    "groups": Figure("Kinds of view told apart"),
    "prototypes": Figure("Prototypes in use", best="unknown"),
    "spread": Figure("Spread of vectors", best="unknown"),
    "loss": Figure("Loss", best="smallest"),
}
"""By name, in the order of tables."""


def figure(name: str) -> Figure:
    """Return what is known of the figure ``name``; one of a task's own has its bare name."""
    return FIGURES.get(name) or Figure(name, best="unknown")


def larger_is_better(name: str) -> bool:
    """Return whether the figure ``name`` grows as a model gets better."""
    return FIGURES[name].best == "largest"
