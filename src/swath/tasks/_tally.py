"""Scores as sums that merge, so that a score does not depend on shards, ranks or their order.

Tasks and baselines fill the same tallies; that is what makes their figures comparable. Counts are
whole numbers in float64, hence exact up to 9e15 whatever the order of merging. A figure that is
not defined, such as the accuracy of no samples, is NaN.

Figures have the names that are used everywhere (``_figures.py``); one of a single class has the
class after a stroke, as iou/<class> and ap/<class>.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np


@dataclass(frozen=True)
class Tally:
    """Named float64 sums; subclasses turn them into figures with names."""

    sums: dict[str, np.ndarray]

    lists: ClassVar[bool] = False
    """Whether these are lists with an entry for each sample, which are joined, not added up."""

    def __add__(self, other: Self) -> Self:
        assert self.sums.keys() == other.sums.keys(), f"{set(self.sums)} is not {set(other.sums)}"
        return replace(
            self, sums={name: value + other.sums[name] for name, value in self.sums.items()}
        )

    def finish(self) -> dict[str, float]:
        """Return the figures, by their usual short names (oa, balanced, kappa, miou, rmse, ...)."""
        raise TypeError(f"{type(self).__name__} has no finish()")

    def doubts(self) -> list[str]:
        """Return warnings about what the figures show, in words."""
        return []

    def _loss(self) -> dict[str, float]:
        """Return the mean loss, where a loss was summed: a forest has none."""
        weight = self.sums["weight"]
        return {"loss": float(self.sums["loss"] / weight)} if weight else {}


def loss_sums(loss: float, weight: float) -> dict[str, np.ndarray]:
    return {"loss": np.float64(loss), "weight": np.float64(weight)}  # type: ignore[dict-item]


@dataclass(frozen=True)
class Confusion(Tally):
    """Counts of (true, predicted) class, for tasks with one class per sample or pixel."""

    classes: tuple[str, ...]
    dense: bool = True
    """Whether pixels are counted, which make up areas: of samples no IoU is told."""

    @classmethod
    def of(
        cls,
        matrix: np.ndarray,
        classes: tuple[str, ...],
        loss: float = 0.0,
        weight: float = 0.0,
        *,
        dense: bool = True,
    ) -> Self:
        """Return the tally of a confusion matrix (k, k): rows are true, columns predicted."""
        assert matrix.shape == (len(classes),) * 2, f"{matrix.shape} for {len(classes)} classes"
        sums = {"confusion": matrix.astype(np.float64), **loss_sums(loss, weight)}
        return cls(sums, classes, dense)

    @classmethod
    def count(
        cls,
        true: np.ndarray,
        predicted: np.ndarray,
        classes: tuple[str, ...],
        *,
        dense: bool = True,
    ) -> Self:
        """Return the tally of class ids (n,) and the ids predicted for them (n,)."""
        k = len(classes)
        pairs = true.astype(np.int64) * k + predicted.astype(np.int64)
        matrix = np.bincount(pairs.ravel(), minlength=k * k).reshape(k, k)
        return cls.of(matrix, classes, dense=dense)

    def finish(self) -> dict[str, float]:
        """Return loss, oa, balanced, kappa, f1_macro, f1_micro, and of pixels miou and iou/<class>.

        Means over classes leave out what does not occur: balanced the classes without a true
        sample, the others those neither true nor predicted (as scikit-learn does).
        """
        matrix = self.sums["confusion"]
        right, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        samples, either = matrix.sum(), true + predicted - right
        with np.errstate(divide="ignore", invalid="ignore"):
            oa = right.sum() / samples
            chance = (true @ predicted) / samples**2
            iou = (right / either)[either > 0]
            names = np.array(self.classes)[either > 0]
            overlaps = {f"iou/{name}": float(v) for name, v in zip(names, iou, strict=True)}
            return {
                **self._loss(),
                "oa": float(oa),
                "balanced": _mean((right / true)[true > 0]),
                "kappa": float((oa - chance) / (1 - chance)),
                "f1_macro": _mean((2 * right / (true + predicted))[either > 0]),
                "f1_micro": float(oa),  # one class per sample: every miss is also a false alarm
                **({"miou": _mean(iou), **overlaps} if self.dense else {}),
            }


@functools.cache
def edges() -> np.ndarray:
    """Return the bounds of the logit bins of :class:`Flags`, float64, each exact in float32: steps
    of 1/64 from 1 to 32 and of 1/64 of the logit from there to 4096 and down to 2^-17; the same
    below 0, and 0. So logits that are all small, or all large, are told apart as well."""
    fine, coarse = (np.exp2(np.arange(first, last, 1 / 44)) for first, last in ((-17, 0), (5, 12)))
    above = np.concatenate([fine, np.arange(64, 2048) / 64, coarse]).astype(np.float32)
    return np.concatenate([-above[::-1], [0.0], above]).astype(np.float64)


@dataclass(frozen=True)
class Flags(Tally):
    """Histograms of the logits of present and absent flags, for tasks with many classes at once.

    A flag is said to be present where its logit is above 0. Average precision is that of
    rounded logits (:func:`edges`), so that it is a sum; those in one bin count as tied.
    """

    classes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        present: np.ndarray,
        absent: np.ndarray,
        exact: float,
        samples: float,
        classes: tuple[str, ...],
        loss: float = 0.0,
        weight: float = 0.0,
    ) -> Self:
        """Return the tally of histograms (k, len(edges()) + 1) of the logits of flags that are
        ``present`` and ``absent``, with ``exact`` of ``samples`` samples right in every flag."""
        sums = {"present": present.astype(np.float64), "absent": absent.astype(np.float64)}
        counts = {"exact": np.float64(exact), "samples": np.float64(samples)}
        return cls({**sums, **counts, **loss_sums(loss, weight)}, classes)  # type: ignore[dict-item]

    @classmethod
    def count(cls, true: np.ndarray, logits: np.ndarray, classes: tuple[str, ...]) -> Self:
        """Return the tally of flags (n, k) in {0, 1} and the logits (n, k) given to them."""
        k, bins = len(classes), len(edges()) + 1
        cells = np.searchsorted(edges(), logits, side="left") + np.arange(k) * bins
        present, absent = (
            np.bincount(cells[true == flag], minlength=k * bins).reshape(k, bins) for flag in (1, 0)
        )
        exact = ((logits > 0) == (true == 1)).all(1).sum()
        return cls.of(present, absent, exact, len(true), classes)

    def finish(self) -> dict[str, float]:
        """Return loss, map, f1_macro, f1_micro, exact and ap/<class>.

        Classes without a present flag have no average precision; classes neither present nor
        predicted have no F1.
        """
        present, absent = self.sums["present"], self.sums["absent"]
        above = np.arange(present.shape[1]) > np.searchsorted(edges(), 0.0)
        hits, alarms = present[:, above].sum(1), absent[:, above].sum(1)
        misses = present[:, ~above].sum(1)
        either = hits + alarms + misses
        precision = _average_precision(present, absent)
        known = present.sum(1) > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            f1 = 2 * hits / (hits + either)
            return {
                **self._loss(),
                "map": _mean(precision[known]),
                "f1_macro": _mean(f1[either > 0]),
                "f1_micro": float(2 * hits.sum() / (hits + either).sum()),
                "exact": float(self.sums["exact"] / self.sums["samples"]),
                **{
                    f"ap/{name}": float(value)
                    for name, value in zip(
                        np.array(self.classes)[known], precision[known], strict=True
                    )
                },
            }


@dataclass(frozen=True)
class Moments(Tally):
    """Sums of errors and targets, for tasks that predict quantities."""

    names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        true: np.ndarray,
        predicted: np.ndarray,
        names: tuple[str, ...],
        shift: np.ndarray | float = 0.0,
        loss: float = 0.0,
        weight: float = 0.0,
    ) -> Self:
        """Return the tally of values (n, t) and their predictions (n, t); NaN values are unknown.

        shift: a value (t,) near the mean of each quantity, equal in all tallies that are to be
            merged; it keeps r2 exact where the mean is large against the spread.
        """
        known = ~np.isnan(true)
        centred = np.where(known, true - shift, 0.0).astype(np.float64)
        error = np.where(known, predicted.astype(np.float64) - true, 0.0)
        sums = {
            "count": known.sum(0).astype(np.float64),
            "error": error.sum(0),
            "absolute": np.abs(error).sum(0),
            "squared": (error**2).sum(0),
            "target": centred.sum(0),
            "target_squared": (centred**2).sum(0),
        }
        return cls({**sums, **loss_sums(loss, weight)}, names)

    def finish(self) -> dict[str, float]:
        """Return loss, rmse, mae, bias (predicted less true), in the label's unit, and r2.

        With several quantities rmse, mae and bias are over all values, r2 is the mean of the
        quantities' r2, and each quantity has its own rmse/<name> and r2/<name>.
        """
        sums = self.sums
        count = sums["count"]
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = sums["target_squared"] - sums["target"] ** 2 / count
            r2 = 1 - sums["squared"] / spread
            each = {
                f"{figure}/{name}": float(value)
                for figure, values in (("rmse", np.sqrt(sums["squared"] / count)), ("r2", r2))
                for name, value in zip(self.names, values, strict=True)
            }
            return {
                **self._loss(),
                "rmse": float(np.sqrt(sums["squared"].sum() / count.sum())),
                "mae": float(sums["absolute"].sum() / count.sum()),
                "bias": float(sums["error"].sum() / count.sum()),
                "r2": _mean(r2[count > 0]),
                **(each if len(count) > 1 else {}),
            }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _average_precision(present: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """Return the sum over thresholds of precision times the recall gained there, per class."""
    hits, alarms = (np.cumsum(h[:, ::-1], 1) for h in (present, absent))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(hits + alarms > 0, hits / (hits + alarms), 0.0)
        return (precision * present[:, ::-1]).sum(1) / hits[:, -1]
