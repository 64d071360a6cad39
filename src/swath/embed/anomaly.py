"""Places unlike all others: how far a vector lies from those of the training part.

neighbours: 1 - cosine to the k-th nearest training vector, after the mean of these is taken off; a
training vector does not count as its own neighbour. mahalanobis: the distance from the mean of the
training vectors in units of their spread along each direction, its covariance shrunk so that few
vectors do (Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4).

Sources: Ramaswamy et al. 2000, doi:10.1145/342009.335437 (k-th neighbour); Lee et al. 2018,
arXiv:1807.03888 (features of a network).
"""

from __future__ import annotations

import numpy as np

from swath.config import ConfigError
from swath.data.draw import uniform
from swath.data.split import PARTS
from swath.embed.found import Found, apart, found
from swath.embed.neighbours import nearest
from swath.embed.places import Places
from swath.embed.settings import Anomaly
from swath.embed.table import Table

SCORE = "anomaly"
_QUERIES = 4096  # at a time


def anomalies(table: Table, settings: Anomaly, seed: int = 0) -> np.ndarray:
    """Return how unlike the training part's vectors each vector of ``table`` is, float32 (n,).

    ConfigError if there are too few training vectors.
    """
    known = np.flatnonzero(table.column("part") == PARTS["train"])
    luck = uniform(seed, known, "anomaly")[:, 0]
    known = np.sort(known[np.argsort(luck, kind="stable")[: settings.most]])
    least = settings.neighbours + 1 if settings.kind == "neighbours" else 2
    if len(known) < least:
        raise ConfigError(
            f"{table.path}: {len(known)} vectors are of the training part, and anomaly.kind="
            f"{settings.kind} wants {least} at least"
            + ("; lower anomaly.neighbours" if len(known) > 1 else "; see data.split")
        )
    given = table.vectors(known)
    if settings.kind == "mahalanobis":
        return _mahalanobis(given, table)
    return _from_neighbours(given, known, table, settings.neighbours)


def strangest(places: Places, scores: np.ndarray, count: int) -> list[Found]:
    """Return the ``count`` places of the largest of ``scores`` (n,), none of which has ground in
    common with another; ConfigError if there are not so many."""
    if count < 1:
        raise ConfigError(f"--count {count}: ask for one place at least")
    taken = apart(places, np.argsort(-scores, kind="stable"), count)
    if len(taken) < count:
        raise ConfigError(
            f"--count {count}: {places.table.path} has {len(taken)} places that do not overlap; "
            "ask for fewer"
        )
    return found(places, taken, scores)


def _from_neighbours(given: np.ndarray, known: np.ndarray, table: Table, k: int) -> np.ndarray:
    mean = given.mean(0, dtype=np.float64)
    there = given - mean
    out = []
    for first, block in table.blocks():
        for at in range(0, len(block), _QUERIES):
            some = block[at : at + _QUERIES] - mean
            number, cosine = nearest(some, [(0, there)], k + 1)
            own = known[number] == (first + at + np.arange(len(some)))[:, None]
            # Without itself, a training vector's k-th neighbour is one further down its row.
            kth = np.where(own[:, :k].any(1), cosine[:, k], cosine[:, k - 1])
            out.append(1 - kth)
    return np.concatenate(out).astype(np.float32)


def _mahalanobis(given: np.ndarray, table: Table) -> np.ndarray:
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(given.astype(np.float64))
    out = [np.sqrt(fitted.mahalanobis(block.astype(np.float64))) for _, block in table.blocks()]
    return np.concatenate(out).astype(np.float32)
