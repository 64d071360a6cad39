"""The nearest vectors by cosine: exact, in blocks, so that memory holds one block and the best.

Vectors are brought to length 1; one that is all zeros has the cosine 0 to any other. Of equal
cosines the vector with the smaller number comes first.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from swath.config import ConfigError

_BLOCK_BYTES = 64_000_000  # of cosines at a time


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (n, d) of length 1, float32."""
    length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def nearest(
    queries: np.ndarray, blocks: Iterable[tuple[int, np.ndarray]], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers (q, k) int64 and cosines (q, k) float32 of the vectors nearest to each of
    ``queries`` (q, d), the nearest first.

    blocks: number of the first vector, and vectors (m, d), as ``Table.blocks`` yields them.
    ConfigError if there are fewer than ``k``.
    """
    if not len(queries):
        raise ConfigError("there is nothing to look for: no query vectors")
    asked = unit(queries)
    best = np.full((len(asked), 0), 0, np.int64)
    score = np.zeros((len(asked), 0), np.float32)
    step = max(1, _BLOCK_BYTES // (4 * len(asked)))
    for first, block in blocks:
        for at in range(0, len(block), step):
            cosine = asked @ unit(block[at : at + step]).T
            number = np.broadcast_to(first + at + np.arange(cosine.shape[1]), cosine.shape)
            score, best = _best(
                np.concatenate([score, cosine], 1), np.concatenate([best, number], 1), k
            )
    if best.shape[1] < k:
        raise ConfigError(
            f"{k} neighbours were asked for, and there are {best.shape[1]} vectors; ask for fewer"
        )
    return best, score


def _best(score: np.ndarray, number: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``k`` largest of each row, in order; of equal ones the smaller number.

    Numbers ascend along a row where cosines are equal, and a stable sort keeps that.
    """
    if score.shape[1] > 2 * k:
        some = np.sort(np.argpartition(-score, k - 1, axis=1)[:, :k], axis=1)
        least = np.take_along_axis(score, some, 1).min(1, keepdims=True)
        # Where more than k reach the k-th largest, a partition takes any of the equal ones.
        for row in np.flatnonzero((score >= least).sum(1) > k):
            some[row] = np.sort(np.argsort(-score[row], kind="stable")[:k])
        score, number = (np.take_along_axis(part, some, 1) for part in (score, number))
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(score, order, 1), np.take_along_axis(number, order, 1)


def vote(cosine: np.ndarray, classes: np.ndarray, number: int, temperature: float) -> np.ndarray:
    """Return the class (q,) that neighbours vote for: each counts exp(cosine / temperature).

    cosine, classes: (q, k) of the neighbours. number: of classes. Of equals, the smaller class.

    Source: Wu et al. 2018, arXiv:1805.01978, as used by Caron et al. 2021, arXiv:2104.14294.
    """
    weight = np.exp((cosine.astype(np.float64) - 1) / temperature)  # at most 1: nothing overflows
    votes = np.zeros((len(cosine), number))
    np.add.at(votes, (np.arange(len(cosine))[:, None], classes), weight)
    return votes.argmax(1)
