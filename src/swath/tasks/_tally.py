"""Scores as sums that merge, so that a score does not depend on shards, ranks or their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass
class Tally:
    """Named float64 sums; subclasses turn them into figures with names."""

    sums: dict[str, np.ndarray]

    def __add__(self, other: Self) -> Self:
        assert self.sums.keys() == other.sums.keys(), f"{set(self.sums)} is not {set(other.sums)}"
        return type(self)({name: value + other.sums[name] for name, value in self.sums.items()})

    def finish(self) -> dict[str, float]:
        """Return the figures, by their usual short names (oa, balanced, kappa, miou, rmse, ...)."""
        raise TypeError(f"{type(self).__name__} has no finish()")
