"""How right a map is: confusion, user's and producer's accuracy, and areas with their errors.

n_ij counts reference pixels that the map puts into class i and the reference into class j: rows
are the map, columns the reference. W_i is the share of the map's area that class i covers. The
area-adjusted figures weigh each row by W_i, which repairs a reference that samples some classes
more than others. They are unbiased, and their standard errors true, only where the reference is a
random sample within each class of the map; reference polygons chosen by hand are none, and
neighbouring pixels are not independent: then take the errors as a lower bound.

Source: Olofsson et al. 2014, Remote Sensing of Environment 148, 42-57, equations 1-11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swath.config import ConfigError
from swath.data.chip import IGNORE

Z95 = 1.96
"""Half a 95 % confidence interval in standard errors."""


@dataclass(frozen=True)
class Areas:
    """Area-adjusted estimates; arrays are per class (k,), NaN where nothing is known."""

    overall: float
    overall_se: float
    users: np.ndarray  # share of the map's class that is right
    users_se: np.ndarray
    producers: np.ndarray  # share of the true class that the map finds
    producers_se: np.ndarray
    share: np.ndarray  # of the whole area that truly is of the class
    share_se: np.ndarray


def confusion(found: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Return pixel counts int64 (classes, classes), rows by ``found``, columns by ``truth``.

    Pixels that are IGNORE in either do not count. Raises ConfigError if the shapes differ.
    """
    if found.shape != truth.shape:
        raise ConfigError(
            f"the map has {found.shape} pixels, the reference {truth.shape}; bring the reference "
            "onto the map's grid"
        )
    known = (found != IGNORE) & (truth != IGNORE)
    pairs = found[known].astype(np.int64) * classes + truth[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def figures(counts: np.ndarray) -> dict[str, float]:
    """Return overall and balanced accuracy, kappa, macro F1 and mean IoU (all 0..1) of a confusion.

    Classes that are neither in the map nor in the reference count nowhere; balanced accuracy is
    over the classes of the reference.
    """
    counts = counts.astype(np.float64)
    total, right = counts.sum(), np.diag(counts)
    if not total:
        raise ConfigError(
            "no reference pixel lies on the map; does the map cover the reference, and does the "
            "split have a test part?"
        )
    mapped, true = counts.sum(axis=1), counts.sum(axis=0)
    chance = (mapped * true).sum() / total**2
    present = mapped + true > 0
    oa = right.sum() / total
    return {
        "oa": oa,
        "balanced": (right[true > 0] / true[true > 0]).mean(),
        "kappa": (oa - chance) / (1 - chance) if chance < 1 else 1.0,
        "f1_macro": (2 * right[present] / (mapped + true)[present]).mean(),
        "miou": (right[present] / (mapped + true - right)[present]).mean(),
    }


def users_and_producers(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return user's and producer's accuracy (k,) as counted; NaN for a class without pixels."""
    right = np.diag(counts).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return right / counts.sum(axis=1), right / counts.sum(axis=0)


def area_adjusted(counts: np.ndarray, mapped: np.ndarray) -> Areas:
    """Return accuracy and area estimates with standard errors.

    counts: confusion (k, k), rows are the map.
    mapped: area that the map gives each class (k,), in any unit.

    A class that the map shows but no reference pixel falls into says nothing about its area: W is
    then taken over the other classes. A row of one reference pixel has no standard error.
    """
    counts, mapped = counts.astype(np.float64), mapped.astype(np.float64)
    seen = counts.sum(axis=1)
    if not seen.any():
        raise ConfigError("no reference pixel lies on the map, so areas cannot be adjusted")
    weight = np.where(seen > 0, mapped, 0.0)
    weight /= weight.sum()
    rows = np.where(seen > 0, seen, 1.0)[:, None]
    inside = counts / rows  # n_ij / n_i
    p = weight[:, None] * inside
    right, true = np.diag(p), p.sum(axis=0)
    free = np.where(seen > 1, seen - 1, np.nan)
    free = np.where(weight > 0, free, 1.0)  # a class that the map lacks adds no variance
    with np.errstate(invalid="ignore", divide="ignore"):
        users = np.where(seen > 0, np.diag(inside), np.nan)
        users_var = users * (1 - users) / free
        u = np.nan_to_num(users)
        overall_var = np.sum(weight**2 * u * (1 - u) / free)
        share_var = np.sum(weight[:, None] ** 2 * inside * (1 - inside) / free[:, None], axis=0)
        producers = right / true
        # Eq. 7, in shares of the area. The column's other rows:
        spread = weight[:, None] ** 2 * inside * (1 - inside) / free[:, None]
        others = spread.sum(axis=0) - np.diag(spread)
        own = weight**2 * (1 - producers) ** 2 * u * (1 - u) / free
        producers_var = (own + producers**2 * others) / true**2
    return Areas(
        overall=float(right.sum()),
        overall_se=float(np.sqrt(overall_var)),
        users=users,
        users_se=np.sqrt(users_var),
        producers=producers,
        producers_se=np.sqrt(producers_var),
        share=true,
        share_se=np.sqrt(share_var),
    )
