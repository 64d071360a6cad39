"""How right a map is: user's and producer's accuracy, and areas with their standard errors.

A confusion counts reference pixels: rows are the true class, columns the map's, as in
``swath.tasks``. W_i is the share of the map's area that class i covers. The area-adjusted figures
weigh each column by its W_i, which repairs a reference that samples some classes more than others.
They are unbiased, and their standard errors true, only where the reference is a random sample
within each class of the map. Polygons chosen by hand are none, and neighbouring pixels are not
independent: the true errors are then larger.

Source: Olofsson et al. 2014, Remote Sensing of Environment 148, 42-57, equations 1-11. The paper's
matrix is the transpose of ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swath.config import ConfigError
from swath.data.chip import IGNORE
from swath.tasks import Confusion


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


def confusion(found: np.ndarray, truth: np.ndarray, classes: tuple[str, ...]) -> Confusion:
    """Return the tally of a map ``found`` against ``truth``, class ids of the same shape.

    Pixels that are IGNORE in either do not count. Raises ConfigError if the shapes differ.
    """
    if found.shape != truth.shape:
        raise ConfigError(
            f"the map has {found.shape} pixels, the reference {truth.shape}; bring the reference "
            "onto the map's grid"
        )
    known = (found != IGNORE) & (truth != IGNORE)
    return Confusion.count(truth[known], found[known], classes)


def users_and_producers(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return user's and producer's accuracy (k,) as counted; NaN for a class without pixels."""
    right = np.diag(counts).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return right / counts.sum(axis=0), right / counts.sum(axis=1)


def area_adjusted(counts: np.ndarray, mapped: np.ndarray) -> Areas:
    """Return accuracy and area estimates with standard errors.

    counts: confusion (k, k), columns are the map.
    mapped: area that the map gives each class (k,), in any unit.

    Where the map shows a class but no reference pixel lies, nobody knows what is true there: W is
    then taken over the other classes. Nothing is known of a class that neither the map nor the
    reference shows at any reference pixel. One reference pixel in a class of the map does not tell
    how much others would differ; it is given the largest variance that a share can have, 1/4,
    so that the estimates over all classes keep their errors, which are then too large.
    """
    n, mapped = counts.T.astype(np.float64), mapped.astype(np.float64)  # n: rows are the map
    seen = n.sum(axis=1)
    if not seen.any():
        raise ConfigError(
            "no reference pixel lies on the map: does the map cover the reference, and has the "
            "split a test part?"
        )
    weight = np.where(seen > 0, mapped, 0.0)
    weight /= weight.sum()
    inside = n / np.where(seen > 0, seen, 1.0)[:, None]  # n_ij / n_i
    p = weight[:, None] * inside
    right, true = np.diag(p), p.sum(axis=0)
    known = seen + n.sum(axis=0) > 0
    free = np.maximum(seen - 1, 1.0)[:, None]
    variance = np.where((seen == 1)[:, None], 0.25, inside * (1 - inside) / free)  # of n_ij / n_i
    with np.errstate(invalid="ignore", divide="ignore"):
        users = np.where(seen > 0, np.diag(inside), np.nan)
        spread = weight[:, None] ** 2 * variance
        producers = right / true
        others = spread.sum(axis=0) - np.diag(spread)
        own = (1 - producers) ** 2 * np.diag(spread)
        return Areas(
            overall=float(right.sum()),
            overall_se=float(np.sqrt(np.diag(spread).sum())),  # eq. 5
            users=users,
            users_se=np.where(seen > 1, np.sqrt(np.diag(variance)), np.nan),  # eq. 6
            producers=producers,
            producers_se=np.sqrt((own + producers**2 * others) / true**2),  # eq. 7, in shares
            share=np.where(known, true, np.nan),
            share_se=np.where(known, np.sqrt(spread.sum(axis=0)), np.nan),  # eq. 10
        )
