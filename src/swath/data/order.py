"""Sample number ``p`` of the endless run, for any ``p`` at once and without a shuffled list.

Epoch ``e`` shows every sample once (or ``repeats`` times) in an order of its own: a keyed
permutation of ``0..n-1``, a Feistel network over a grid of a x b >= n cells with cycle walking.
It takes no memory, costs the same for any position, and knows no ranks, workers or files.

Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains"
(doi:10.1007/3-540-45760-7_9), with additions modulo a and b in place of exclusive-or, so that the
grid is hardly larger than n.
"""

from __future__ import annotations

import math

import numpy as np

from swath.config import ConfigError
from swath.data.draw import bits, mix

_ROUNDS = 8  # additions, by turns to row and column; 4 already pass the tests in tests/data


class Order:
    """The endless sequence of sample numbers of a run."""

    def __init__(self, samples: int, seed: int, repeats: np.ndarray | None = None):
        """samples: how many there are, numbered from 0. seed: of all epochs' permutations.

        repeats: int (samples,), how often each sample is shown in an epoch; None: once.
        """
        self.samples, self.seed = samples, seed
        self._ends: np.ndarray | None = None
        if repeats is not None:
            if len(repeats) != samples or (np.asarray(repeats) < 0).any():
                raise ConfigError(
                    f"repeats must be {samples} counts of 0 or more, one for each sample"
                )
            self._ends = np.cumsum(repeats, dtype=np.int64)
        self.length = samples if self._ends is None or not samples else int(self._ends[-1])
        """Samples shown in one epoch."""
        if self.length < 1:
            raise ConfigError(
                "there are no samples to put in order; is this part of the split empty?"
            )
        self._rows = math.isqrt(self.length - 1) + 1
        self._columns = -(-self.length // self._rows)

    def epoch(self, position: int) -> int:
        """Return the number of the epoch, from 0, that ``position`` falls into."""
        return position // self.length

    def index(self, positions: np.ndarray | int) -> np.ndarray:
        """Return the sample shown at each of ``positions`` (n,): int64 (n,)."""
        places = np.atleast_1d(np.asarray(positions, dtype=np.int64))
        if (places < 0).any():
            raise ValueError(f"position {places.min()} is before the start of the run")
        epochs, within = np.divmod(places, self.length)
        shown = self._permute(epochs, within)
        return shown if self._ends is None else np.searchsorted(self._ends, shown, side="right")

    def _permute(self, epochs: np.ndarray, within: np.ndarray) -> np.ndarray:
        keys = bits(self.seed, epochs, "order", _ROUNDS)
        found = self._scramble(keys, within)
        outside = np.flatnonzero(found >= self.length)
        while outside.size:  # at most a row of cells is outside; walk on until back inside
            found[outside] = self._scramble(keys[outside], found[outside])
            outside = outside[found[outside] >= self.length]
        return found

    def _scramble(self, keys: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Permute the cells of the grid; each addition can be undone, so no two cells meet."""
        row, column = np.divmod(cells.astype(np.uint64), np.uint64(self._columns))
        rows, columns = np.uint64(self._rows), np.uint64(self._columns)
        for turn in range(0, _ROUNDS, 2):
            row = (row + mix(column ^ keys[:, turn]) % rows) % rows
            column = (column + mix(row ^ keys[:, turn + 1]) % columns) % columns
        return (row * columns + column).astype(np.int64)
